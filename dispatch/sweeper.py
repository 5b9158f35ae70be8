"""Finds what has lost its workflow: fasts before they are due, messages and pushes soon after. One worker does it.

It runs beside Temporal, not in it, so it survives when Temporal is emptied.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from activities.housekeeping import GONE, Sweeping, Walk, WorkflowState
from activities.reminders import Moment, OpenReminder, ReminderOpening
from db import device_tokens, fasting_sessions, orphans, preferences, webhooks, workers
from db.engine import Sessions, present_instant
from db.orphans import Mark, Unopened, Window
from domain.fasts import LONGEST_USEFUL, message_id, reminders
from domain.housekeeping import AHEAD, SWEEP, UNTOUCHED
from domain.kinds import Kind
from domain.last_check import unwanted_everywhere
from domain.naming import reminder_workflow_id
from domain.preferences import Preferences

_EVERY = 1.0  # seconds between looks at what is near
_STANDS_BY = 5.0  # seconds between tries to take the lease
_RENEWS_EVERY = 4.0  # seconds
_LASTS = timedelta(seconds=15)  # the lease; after a stall this long another worker takes over
_READS_EVERY = 5.0  # seconds between readings of what is near, where these are quick
_MAX_READS = 20  # times as long as a reading took passes before the next, to spare the database
_WALKS_EVERY = 30.0  # seconds
_MAX_QUESTIONS = 50  # questions to Temporal in one look
_MAX_STARTED = 200  # fasts dispatched again in one look
_MAX_NEAR = 5_000  # reminders in one reading
_MAX_OVER = 100  # expired reminders recorded after one reading
_SAMPLE = 10  # if this many answers are all *lost*, Temporal was emptied
_MAX_PAGES = 50  # of one walk in one round; the next round goes on
_OVERDUE = timedelta(seconds=5)  # after which a reminder that was not opened is counted
_GIVES_UP_ON = timedelta(seconds=10)  # late; then its fast is dispatched again, and again whenever that doubles

_NOT = timedelta(0)

_Key = tuple[UUID, datetime]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Near:
    """What was read, and when: reminders that lie ahead, and those that are due and not opened."""

    at: datetime  # by the database's clock
    read_at: float  # by the loop's
    ahead: Sequence[Unopened]
    behind: Sequence[Unopened]


class Sweeper:
    """Sweeps while it holds the lease, and remembers when it last asked Temporal about each fast that is near.

    It asks about a fast again when half of the time has passed that was left at the last question: seldom while there
    is much time to repair it, and last a second before it is due. Armed reminders are in the database: no question.
    """

    def __init__(
        self,
        sessions: Sessions,
        sweeping: Sweeping,
        *,
        untouched: float = UNTOUCHED,
        walks_every: float = _WALKS_EVERY,
    ) -> None:
        self._sessions = sessions
        self._sweeping = sweeping
        self._opening = ReminderOpening(sessions)
        self._untouched = untouched
        self._walks_every = walks_every
        self._id = uuid4()
        self._near: _Near | None = None
        self._read_again_at = 0.0
        self._left: dict[_Key, timedelta] = {}  # time until it is due, at the last question
        self._late: dict[_Key, timedelta] = {}  # time since it was due, at the last dispatch
        self._renew_at = 0.0
        self._walking: asyncio.Task[None] | None = None
        self._walk_again_at = 0.0
        self._strays_after: Mark | None = None

    async def sweep_forever(self) -> None:
        """Sweep, or stand by, until cancelled; errors of the database or Temporal are logged, and it goes on."""
        try:
            while True:
                holds = False
                try:
                    holds = await self._holds()
                    if holds:
                        await self._sweep()
                except Exception as error:  # noqa: BLE001 -- a sweeper that dies is worse than any error
                    log.warning("sweep failed", error=type(error).__name__)
                await asyncio.sleep(_EVERY if holds else _STANDS_BY)
        finally:
            if self._walking is not None:
                self._walking.cancel()

    async def leave(self) -> None:
        """Let another worker sweep at once."""
        with suppress(Exception):
            async with asyncio.timeout(2), self._sessions.begin() as db:
                await workers.give_up(db, SWEEP, self._id)

    async def _holds(self) -> bool:
        loop = asyncio.get_running_loop()
        if loop.time() < self._renew_at:
            return True
        async with self._sessions.begin() as db:
            taken = await workers.take(db, SWEEP, self._id, _LASTS)
        if taken is None:
            self._near, self._left, self._late = None, {}, {}
            return False
        self._renew_at = loop.time() + _RENEWS_EVERY
        return True

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        if self._near is None or loop.time() >= self._read_again_at:
            self._near = await self._read()
            took = loop.time() - self._near.read_at
            self._read_again_at = loop.time() + max(_READS_EVERY, _MAX_READS * took)
            await self._open_too_late(self._near)
            await self._start_overdue(self._near)
        await self._look(self._near)
        if loop.time() >= self._walk_again_at and (self._walking is None or self._walking.done()):
            self._walk_again_at = loop.time() + self._walks_every
            self._walking = asyncio.create_task(self._walk())

    async def _read(self) -> _Near:
        """Read what is near, and publish what is overdue."""
        read_at = asyncio.get_running_loop().time()
        async with self._sessions.begin() as db:
            at = await present_instant(db)
            ahead = await orphans.unopened(db, Window(at, at + AHEAD), _MAX_NEAR)
            window = Window(at - LONGEST_USEFUL, at - _OVERDUE)
            behind = await self._wanted(db, await orphans.unopened(db, window, _MAX_NEAR))
            await workers.report(db, SWEEP, self._id, _report(at, behind))
        self._left = {_key(each): self._left[_key(each)] for each in ahead if _key(each) in self._left}
        self._late = {_key(each): self._late[_key(each)] for each in behind if _key(each) in self._late}
        return _Near(at, read_at, ahead, behind)

    async def _wanted(self, db: AsyncSession, unopened: Sequence[Unopened]) -> list[Unopened]:
        """Leave out reminders that are not wanted, and those that have reached a log anyway."""
        if not unopened:
            return []
        user_ids = {each.user_id for each in unopened}
        by_user, zones = await preferences.of_users(db, user_ids), await device_tokens.time_zones(db, user_ids)

        def is_wanted(each: Unopened) -> bool:
            preferred = by_user.get(each.user_id, Preferences())
            return not unwanted_everywhere(Kind.REMINDER, preferred, each.due_at, zones.get(each.user_id, ()))

        wanted = [each for each in unopened if is_wanted(each)]
        opened = await orphans.entered(db, {_message(each) for each in wanted})
        return [each for each in wanted if _message(each) not in opened]

    async def _open_too_late(self, near: _Near) -> None:
        """Open reminders that expired unopened, as their workflow would, so that each is recorded once as dead.

        Temporal may be away until their fasts are over, and no workflow would open them then.
        """
        async with self._sessions() as db:
            fasts = await fasting_sessions.by_id(db, {each.session_id for each in near.behind})
        expires_at = {
            (fast.session_id, each.minutes, each.due_at): each.expires_at
            for fast in fasts.values()
            for each in reminders(fast)
        }
        latest = near.at - _OVERDUE
        over = [
            each
            for each in near.behind
            if expires_at.get((each.session_id, each.minutes, each.due_at), near.at) <= latest
        ]
        for each in random.sample(over, min(len(over), _MAX_OVER)):  # so that the same hundred is not taken every time
            try:
                await self._opening.open_reminder(OpenReminder(each.session_id, each.minutes, each.due_at, Moment.DUE))
            except Exception as error:  # noqa: BLE001 -- one that fails does not stop the others
                log.warning(
                    "processing an expired reminder failed", session_id=str(each.session_id), error=type(error).__name__
                )

    async def _start_overdue(self, near: _Near) -> None:
        """Dispatch again what is due and unopened: late, but not lost. Its workflow may have missed it."""
        late = {each: near.at - each.due_at for each in near.behind}
        up = [each for each in near.behind if late[each] >= max(_GIVES_UP_ON, 2 * self._late.get(_key(each), _NOT))]
        await self._start(up[:_MAX_STARTED], "reminders overdue and not opened")
        self._late |= {_key(each): late[each] for each in up[:_MAX_STARTED]}

    async def _look(self, near: _Near) -> None:
        """Ask Temporal about the nearest whose turn it is, and dispatch again those that it does not run."""
        now = near.at + timedelta(seconds=asyncio.get_running_loop().time() - near.read_at)
        waiting = {each.session_id: each for each in reversed(near.ahead) if each.due_at > now and each.has_phone}
        up = sorted((each for each in waiting.values() if self._is_up(each, now)), key=lambda each: each.due_at)
        batch = up[:_MAX_QUESTIONS]
        if not batch:
            return
        states = await self._sweeping.workflow_states([reminder_workflow_id(each.session_id) for each in batch])
        gone = [each for each in batch if states[reminder_workflow_id(each.session_id)] in GONE]
        if len(batch) >= _SAMPLE and set(states.values()) == {WorkflowState.LOST}:
            gone = up[:_MAX_STARTED]  # no need to ask an emptied Temporal about each
        answered = (
            batch if set(states.values()) != {WorkflowState.UNKNOWN} else []
        )  # no answer about one of several counts as an answer
        await self._start(gone, "fasts without a workflow")
        self._left |= {_key(each): each.due_at - now for each in (*answered, *gone)}

    def _is_up(self, each: Unopened, now: datetime) -> bool:
        before = self._left.get(_key(each), min(each.due_at - each.scheduled_at, 2 * AHEAD))
        return each.due_at - now <= before / 2

    async def _start(self, lost: Sequence[Unopened], why: str) -> None:
        count = await self._sweeping.dispatch_again(fasting_sessions.OUTBOX_KIND, [each.session_id for each in lost])
        if count:
            log.warning(why, dispatched_again=count)

    async def _walk(self) -> None:
        """Look through messages, push tasks and webhooks that make no progress."""
        try:
            handoffs = Walk(self._untouched)
            for _ in range(_MAX_PAGES):
                walked = await self._sweeping.restart_handoffs(handoffs)
                if walked.after is None:
                    break
                handoffs = Walk(self._untouched, walked.after, upto=walked.upto)
            for _ in range(_MAX_PAGES):
                walked = await self._sweeping.mark_orphans_dead(Walk(self._untouched, self._strays_after))
                self._strays_after = walked.after
                if walked.after is None:
                    break
            async with self._sessions() as db:
                unfollowed = await webhooks.unfollowed(db)
            await self._sweeping.dispatch_again(webhooks.OUTBOX_KIND, unfollowed)
        except Exception as error:  # noqa: BLE001 -- the next round tries again
            log.warning("sweep failed", error=type(error).__name__)


def _key(each: Unopened) -> _Key:
    return each.session_id, each.due_at


def _message(each: Unopened) -> UUID:
    return message_id(each.session_id, each.minutes, each.due_at)


def _report(at: datetime, behind: Sequence[Unopened]) -> dict[str, Any]:
    oldest = behind[0].due_at.isoformat() if behind else None
    return {"at": at.isoformat(), "unopened": len(behind), "oldest_due_at": oldest}
