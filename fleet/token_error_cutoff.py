"""The token-error cutoff in one worker: it watches the answers on each route, stops a route, and learns of stops.

Whether a route is cut off, its limiter knows in this process, and `db/token_error_cutoffs.py` for all of them.

A suspect token is not deactivated at once, but when a later push was accepted: on the same route, with the same
credentials, by this process, and so much later that no call overlapped the error. And only while more users have
accepted pushes than have suspect tokens and token errors. Suspects that a restart forgets are found by the next push.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from datetime import datetime
from uuid import UUID

import structlog

from db import push_tasks, token_error_cutoffs
from db.engine import Sessions
from domain.mass_failure import MassFailure, Record, Threshold
from domain.push import Route
from push.limiter.registry import RouteLimiters
from push.sender import Accepted, Answer, MismatchedToken, Rejected, Sender, SuspectToken, Unregistered
from sending.outcomes import ReportedToken
from sending.precheck import Proceed

LONGEST_CALL = 10.0  # seconds
DEFAULT_THRESHOLD = Threshold()
_MAX_SUSPECTS = 1000
_MAX_REDRIVABLE = 1000

log = structlog.get_logger()


class TokenErrorCutoff:
    """Watches all routes of this process."""

    def __init__(
        self,
        sessions: Sessions,
        limiters: RouteLimiters,
        threshold: Threshold = DEFAULT_THRESHOLD,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.changes = 0  # grows with each stop of ours, so that an older reading of the database is told from a newer
        self._sessions = sessions
        self._limiters = limiters
        self._threshold = threshold
        self._clock = clock
        self._watches: dict[Route, _Watch] = {}
        self._storing: set[Route] = set()  # stopped here; the database may not know it yet
        self._to_mark_dead: dict[Route, list[UUID]] = {}  # push tasks that were refused before another worker's stop

    async def note(self, go: Proceed, sender: Sender, answer: Answer) -> tuple[ReportedToken, ...]:
        """Note an answer, and stop the route if it shows a mass failure; returns the tokens to deactivate."""
        if not self._limiters.serves(go.route, sender):
            return ()  # a late answer to other credentials says nothing about those in use
        now, watch = self._clock(), self._watch(go.route, sender)
        match answer:
            case Accepted():
                return watch.accepted(now, go)
            case Rejected():
                return ()
            case Unregistered(reason, since):
                dead: tuple[ReportedToken, ...] = (_dead(go, reason, since or go.began_at),)
            case SuspectToken(reason):
                watch.suspect(now, go.user_id, _dead(go, reason, go.began_at))
                dead = ()
            case MismatchedToken(reason):
                dead = ()
        watch.record.token_error(now, go.user_id, answer.reason)
        if not isinstance(answer, Unregistered):
            watch.redrivable.append((now, go.push.task_id))
        failure = watch.record.judged(now)
        if failure is not None and not self._limiters.at(go.route).is_cut_off:
            await self._engage(go.route, failure)
        return dead

    async def learn(self, engaged: Collection[Route], *, changes: int) -> None:
        """Stop and resume routes as the database says; `changes` is from before it was read."""
        for route in engaged:
            if not self._limiters.at(route).is_cut_off:
                self._limiters.at(route).cut_off()
                self._to_mark_dead.setdefault(route, []).extend(self._redrivable(route))
                self._watches.pop(route, None)
        if changes == self.changes:
            for route in self._limiters.cut_off() - set(engaged) - self._storing:
                self._watches.pop(route, None)
                self._limiters.at(route).resume()
                log.info("token-error cutoff resumed", **_names(route))
        await self._mark_dead()

    async def _mark_dead(self) -> None:
        """Make dead what was refused before another worker's stop; what fails is tried again at the next heartbeat."""
        for route, task_ids in list(self._to_mark_dead.items()):
            try:
                async with self._sessions.begin() as db:
                    await push_tasks.mark_dead(db, task_ids)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("marking pushes dead failed, will retry", error=type(error).__name__, **_names(route))
            else:
                del self._to_mark_dead[route]

    def _watch(self, route: Route, sender: Sender) -> "_Watch":
        watch = self._watches.get(route)
        if watch is None or watch.sender is not sender:
            watch = self._watches[route] = _Watch(sender, self._threshold)
        return watch

    async def _engage(self, route: Route, failure: MassFailure) -> None:
        """Stop the route here at once, then for all workers; a failing database is tried for some seconds."""
        self._storing.add(route)
        self._limiters.at(route).cut_off()
        try:
            for wait in (0.1, 0.5, 2.0, 0.0):
                try:
                    await self._store(route, failure)
                except Exception as error:  # noqa: BLE001 -- whatever ails the database
                    log.warning("storing the cutoff failed, will retry", error=type(error).__name__, **_names(route))
                    await asyncio.sleep(wait)
                else:
                    return
        finally:  # one that could not be stored is resumed at the next heartbeat, and engaged again by the next error
            self._storing.discard(route)
            self.changes += 1

    async def _store(self, route: Route, failure: MassFailure) -> None:
        async with self._sessions.begin() as db:
            is_first = await token_error_cutoffs.engage(db, route, failure)
            await push_tasks.mark_dead(db, self._redrivable(route))
        self._watches.pop(route, None)
        if is_first:
            counts = {"token_errors": failure.token_errors, "answers": failure.answers}  # both in users
            log.error("token-error cutoff engaged", reason=failure.reason, **counts, **_names(route))

    def _redrivable(self, route: Route) -> list[UUID]:
        watch = self._watches.get(route)
        since = self._clock() - self._threshold.window.total_seconds()
        return [task_id for at, task_id in watch.redrivable if at >= since] if watch else []


class _Watch:
    """The recent answers on one route, with one sender."""

    def __init__(self, sender: Sender, threshold: Threshold) -> None:
        self.sender = sender
        self.record = Record(threshold)
        self.redrivable: deque[tuple[float, UUID]] = deque(maxlen=_MAX_REDRIVABLE)
        self._suspects: dict[UUID, tuple[float, str, ReportedToken]] = {}  # by device: since when, and whose

    def accepted(self, now: float, go: Proceed) -> tuple[ReportedToken, ...]:
        """Clear this device of suspicion; returns the older suspects if the route is known to work."""
        self.record.accepted(now, go.user_id)
        if not self._suspects:
            return ()
        self._suspects.pop(go.device_id, None)
        if not self.record.acceptances_outnumber(now, len({user_id for _, user_id, _ in self._suspects.values()})):
            return ()
        dead = [token for at, _, token in self._suspects.values() if at + LONGEST_CALL <= now]
        for token in dead:
            del self._suspects[token.device_id]
        return tuple(dead)

    def suspect(self, now: float, user_id: str, token: ReportedToken) -> None:
        """Remember a suspect token; beyond a thousand the oldest is forgotten."""
        self._suspects[token.device_id] = (now, user_id, token)
        if len(self._suspects) > _MAX_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]


def _dead(go: Proceed, reason: str, since: datetime) -> ReportedToken:
    return ReportedToken(go.route, go.device_id, go.push.token, since, reason)


def _names(route: Route) -> dict[str, str | None]:
    return {"provider": route.provider.value, "app_id": route.app_id, "environment": route.environment.value}
