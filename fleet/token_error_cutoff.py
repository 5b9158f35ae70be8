"""The mass-failure brake's worker side: watches each route's answers, engages the brake, learns of it, lets go.

A doubtful token is only suspected. It is deactivated once the same route, with the same credentials and in this
process, took another push so much later that no call of the time of the error was under way; and only while users
whose push was taken outnumber those with suspects and token errors. What is lost by a restart comes back with the next
push.
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
        self.changes = 0  # grows with what happens here, so that older news can be told
        self._sessions = sessions
        self._limiters = limiters
        self._threshold = threshold
        self._clock = clock
        self._watches: dict[Route, _Watch] = {}
        self._engaged: set[Route] = set()
        self._engaging: set[Route] = set()
        self._unburied: dict[Route, list[UUID]] = {}

    async def note(self, go: Proceed, sender: Sender, answer: Answer) -> tuple[ReportedToken, ...]:
        """Take note of an answer; returns the tokens to deactivate, unless the brake is engaged by then."""
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
        if failure is not None and go.route not in self._engaged | self._engaging:
            await self._engage(go.route, failure)
        return dead

    async def learn(self, engaged: Collection[Route], *, changes: int) -> None:
        """Learn which brakes are engaged, from the database as it was when `changes` stood where it is given."""
        for route in set(engaged) - self._engaged - self._engaging:
            self._limiters.at(route).cutoff()
            self._engaged.add(route)
            self._unburied[route] = self._unburied.get(route, []) + self._redrivable(route)
            self._watches.pop(route, None)
        if changes == self.changes:
            for route in self._engaged - set(engaged) - self._engaging:
                self._engaged.discard(route)
                self._watches.pop(route, None)
                self._limiters.at(route).release()
                log.info("brake resumed", **_names(route))
        await self._bury()

    async def _bury(self) -> None:
        """Make dead what was refused before a brake engaged elsewhere; what fails is tried again at the next beat."""
        for route, task_ids in list(self._unburied.items()):
            try:
                async with self._sessions.begin() as db:
                    await push_tasks.mark_dead(db, task_ids)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("refused pushes not buried yet", error=type(error).__name__, **_names(route))
            else:
                del self._unburied[route]

    def _watch(self, route: Route, sender: Sender) -> "_Watch":
        watch = self._watches.get(route)
        if watch is None or watch.sender is not sender:
            watch = self._watches[route] = _Watch(sender, self._threshold)
        return watch

    async def _engage(self, route: Route, failure: MassFailure) -> None:
        """Shut the gate at once, then tell everybody; a database in trouble is asked again for a while."""
        self._engaging.add(route)
        self._limiters.at(route).cutoff()
        try:
            for wait in (0.1, 0.5, 2.0, 0.0):
                try:
                    await self._store(route, failure)
                except Exception as error:  # noqa: BLE001 -- whatever ails the database
                    log.warning("brake not stored yet", error=type(error).__name__, **_names(route))
                    await asyncio.sleep(wait)
                else:
                    return
        finally:  # one that could not be stored is let go by the next heartbeat, and judged again by the next error
            self._engaged.add(route)
            self._engaging.discard(route)
            self.changes += 1

    async def _store(self, route: Route, failure: MassFailure) -> None:
        async with self._sessions.begin() as db:
            is_news = await token_error_cutoffs.engage(db, route, failure)
            await push_tasks.mark_dead(db, self._redrivable(route))
        self._watches.pop(route, None)
        if is_news:
            counts = {"token_errors": failure.token_errors, "answers": failure.answers}  # both in users
            log.error("brake engaged", reason=failure.reason, **counts, **_names(route))

    def _redrivable(self, route: Route) -> list[UUID]:
        watch = self._watches.get(route)
        since = self._clock() - self._threshold.window.total_seconds()
        return [task_id for at, task_id in watch.redrivable if at >= since] if watch else []


class _Watch:
    """What one route's answers came to lately, with one sender."""

    def __init__(self, sender: Sender, threshold: Threshold) -> None:
        self.sender = sender
        self.record = Record(threshold)
        self.redrivable: deque[tuple[float, UUID]] = deque(maxlen=_MAX_REDRIVABLE)
        self._suspects: dict[UUID, tuple[float, str, ReportedToken]] = {}  # by device: since when, whose

    def accepted(self, now: float, go: Proceed) -> tuple[ReportedToken, ...]:
        """Clear this device, and give the suspects of before, if the route is known to work by then."""
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
        """Keep a token in mind; where there are too many, the oldest is forgotten."""
        self._suspects[token.device_id] = (now, user_id, token)
        if len(self._suspects) > _MAX_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]


def _dead(go: Proceed, reason: str, since: datetime) -> ReportedToken:
    return ReportedToken(go.route, go.device_id, go.push.token, since, reason)


def _names(route: Route) -> dict[str, str | None]:
    return {"provider": route.provider.value, "app_id": route.app_id, "environment": route.environment.value}
