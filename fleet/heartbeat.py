"""The worker's heartbeat: it reports this process and its limiters, and reads which others live and what is cut off."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

import structlog

from db import token_error_cutoffs, workers
from db.engine import Sessions
from fleet.token_error_cutoff import TokenErrorCutoff
from push.limiter.registry import RouteLimiters
from telemetry import metrics

log = structlog.get_logger()

_TIMEOUT = 4.0  # seconds for one heartbeat


@dataclass(frozen=True, slots=True)
class HeartbeatTimings:
    """Seconds. Tests use shorter ones."""

    every: float = 2.0
    lapses: float = 9.0  # after its last heartbeat; then a worker gives up its share of the rate
    lives: float = 10.0  # after its last heartbeat; then the others take that share


DEFAULT_HEARTBEAT = HeartbeatTimings()


@dataclass(frozen=True, slots=True)
class Process:
    """The process of a worker, by which its successor on the same host sees that it is dead."""

    host: str
    pid: int

    def is_dead(self, other: int) -> bool:
        """Whether a worker of this host is dead. One with our own pid ran in this container before us."""
        if other == self.pid:
            return True
        try:
            os.kill(other, 0)
        except (ProcessLookupError, OverflowError):  # the latter for a number that no process can have
            return True
        except PermissionError:
            return False
        return False


def this_process() -> Process:
    """Name this process."""
    return Process(socket.gethostname(), os.getpid())


class Heartbeat:
    """Divides the fleet's rate: a lone worker takes all, a new one takes nothing before all others know of it.

    `process`: its dead predecessors lose their share at once. `reaches_temporal`: whether Temporal answered last.
    """

    def __init__(
        self,
        sessions: Sessions,
        limiters: RouteLimiters,
        cutoff: TokenErrorCutoff,
        heartbeat_timings: HeartbeatTimings = DEFAULT_HEARTBEAT,
        *,
        process: Process | None = None,
        reaches_temporal: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sessions = sessions
        self._limiters = limiters
        self._cutoff = cutoff
        self._heartbeat_timings = heartbeat_timings
        self._process = process
        self._reaches_temporal = reaches_temporal
        self.worker_id = uuid4()
        self._joined_at: datetime | None = None
        self._share = 0.0
        self._lapse: asyncio.TimerHandle | None = None

    async def beat_forever(self) -> None:
        """Beat until cancelled."""
        try:
            while True:
                await self._try_to_beat()
                await asyncio.sleep(self._heartbeat_timings.every)
        finally:
            if self._lapse is not None:
                self._lapse.cancel()

    async def leave(self) -> None:
        """Deregister, when the last send is over."""
        try:
            async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                await workers.leave(db, self.worker_id)
        except Exception as error:  # noqa: BLE001 -- whatever ails the database; the others see that we are gone
            log.warning("stopped without deregistering", error=type(error).__name__)

    async def _try_to_beat(self) -> None:
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(_TIMEOUT, self._heartbeat_timings.lapses)):
                await self._beat()
        except Exception as error:  # noqa: BLE001 -- whatever ails the database
            log.warning("heartbeat failed", error=type(error).__name__)
            metrics.heartbeats_missed.inc()
            return
        metrics.heartbeat_at.set_to_current_time()
        if self._lapse is not None:
            self._lapse.cancel()
        self._lapse = asyncio.get_running_loop().call_at(began + self._heartbeat_timings.lapses, self._lapsed)

    async def _beat(self) -> None:
        changes = self._cutoff.changes
        if self._process is not None and self._joined_at is None:
            async with self._sessions.begin() as db:
                await workers.forget_dead(db, self._process.host, self._process.is_dead)
        async with self._sessions.begin() as db:
            seen = await workers.beat(db, self.worker_id, self._report(), lives=self._heartbeat_timings.lives)
            if self._part(seen) < self._share:  # before the others can see that we know of them, and take theirs
                self._take(self._part(seen))
        async with self._sessions() as db:
            engaged = await token_error_cutoffs.engaged(db)
        await self._cutoff.learn(engaged.keys(), changes=changes)
        self._joined_at = self._joined_at or seen.at
        self._take(self._part(seen))

    def _part(self, seen: workers.Seen) -> float:
        joined_at = self._joined_at or seen.at
        known = seen.oldest_other is None or seen.oldest_other > joined_at
        return 1 / (seen.others + 1) if known else 0.0

    def _take(self, share: float) -> None:
        self._share = share
        self._limiters.share(share)

    def _report(self) -> dict[str, Any]:
        """Report all route limiters; if that fails, the heartbeat counts all the same."""
        process = {} if self._process is None else asdict(self._process)
        process["temporal_answers"] = self._reaches_temporal()
        try:
            return self._limiters.report() | process
        except Exception as error:  # noqa: BLE001 -- the report is for people only
            log.warning("reporting the route limiters failed", error=type(error).__name__)
            return {"gates": []} | process

    def _lapsed(self) -> None:
        log.warning("heartbeat lapsed")
        self._joined_at = None
        self._take(0.0)
