"""Outbox to Temporal: reads a subject as it is now, and starts or signals its workflow accordingly.

Level-triggered, so it may run twice, late or out of order. The API process dispatches what it has just committed. The
sweeper in each worker dispatches the rest.
"""

import asyncio
from bisect import insort
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from uuid import UUID

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from activities.handoff import HandoffState
from activities.reminders import SessionState
from db import fasting_sessions, handoffs, messages, outbox, webhooks
from db.batch import Batch
from db.engine import Sessions
from db.fasting_sessions import Dispatched
from db.unreadable import Unreadable
from dispatch import starts
from domain.fasts import FastingSession, arm_seconds, upcoming
from operations import diagnostic_push as test_pushes
from operations import redrive as redrives
from telemetry import metrics, tracing

_DISPATCH_TIMEOUT = 15.0  # seconds; also bounds the first connect, which has no timeout of its own
_CLOSE_WITHIN = 5.0  # seconds
_AT_ONCE = 20  # dispatches under way in one process
_MAX_WAITING = 1000  # beyond this an API process leaves its rows to the sweepers
_SWEEP_EVERY = 1.0  # seconds
_SWEEP_MOST = 200
_UNHURRIED = 20  # of these in a second, if Temporal has to know of a fast only much later: an import must not fill it
_SUBJECT_IDS = {
    fasting_sessions.OUTBOX_KIND: "session_id",
    messages.OUTBOX_KIND: "message_id",
    redrives.OUTBOX_KIND: "task_id",
    test_pushes.OUTBOX_KIND: "test_push_id",
    webhooks.OUTBOX_KIND: "webhook_id",
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A row for this process to dispatch, with the context of the request that wrote it."""

    entry: outbox.OutboxEntry
    context: Context


class Relay:
    """Dispatches outbox rows over one client."""

    def __init__(self, sessions: Sessions, client: Client, arm_window: float) -> None:
        self._sessions = sessions
        self._client = client
        self._arm_window = arm_window
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._waiting: list[_Waiting] = []  # soonest needed first
        self._under_way: set[asyncio.Task[None]] = set()
        self._reads = Batch(self._read_all)
        self._settles = Batch(self._settle_all)
        self._held: set[int] = set()  # leased rows that we could not give back, because the database was away

    def dispatch_soon(self, entry: outbox.OutboxEntry) -> None:
        """Dispatch a row that was just committed, after the answer, the soonest needed first.

        Where that fails a sweeper does it. Sweepers also get the least urgent rows where there are too many.
        """
        insort(self._waiting, _Waiting(entry, copy_context()), key=lambda each: each.entry.place)
        self._dispatch_next()
        del self._waiting[_MAX_WAITING:]

    async def sweep_forever(self) -> None:
        """Dispatch what is due, for ever; an error of the database is logged, and the next round tries again.

        A slow dispatch delays no later one.
        """
        under_way: set[asyncio.Task[None]] = set()
        loop, unhurried_at = asyncio.get_running_loop(), 0.0
        try:
            while True:
                room, due = _SWEEP_MOST - len(under_way), 0
                try:
                    has_time = loop.time() >= unhurried_at
                    entries = await self._lease(room, _UNHURRIED if has_time else 0)
                    unhurried_at = loop.time() + 1.0 if has_time else unhurried_at
                    under_way |= {asyncio.create_task(self.dispatch(entry)) for entry in entries}
                    due = len(entries)
                except Exception as error:  # noqa: BLE001 -- a sweeper that dies is worse than any error
                    log.warning("sweep failed", error=type(error).__name__)
                if under_way:
                    _, under_way = await asyncio.wait(under_way, timeout=_SWEEP_EVERY)
                if due < room and not under_way:  # slow ones were waited for already
                    await asyncio.sleep(_SWEEP_EVERY)
        finally:
            for task in under_way:
                task.cancel()
            await self._stop_batches()

    async def sweep(self) -> int:
        """Dispatch the rows that are due; returns how many there were."""
        due = await self._lease(_SWEEP_MOST, None)
        await asyncio.gather(*(self.dispatch(entry) for entry in due))
        return len(due)

    async def dispatch(self, entry: outbox.OutboxEntry) -> None:
        """Bring Temporal up to date with one subject, then delete the row; on an error, postpone it."""
        subject = {_SUBJECT_IDS.get(entry.subject_kind, "subject_id"): str(entry.subject_id)}
        async with self._at_once:
            with structlog.contextvars.bound_contextvars(**subject):
                try:
                    await self._dispatch(entry)
                except Exception as error:  # noqa: BLE001 -- whatever it is, the row stays
                    log.warning("dispatch postponed", error=_name(error))
                    metrics.dispatches.labels(entry.subject_kind, "postponed", metrics.reason(_name(error))).inc()
                    await self._postpone(entry, _name(error))
                else:
                    metrics.dispatches.labels(entry.subject_kind, "agreed", "").inc()

    def state_of(self, session: FastingSession) -> SessionState:
        """Give the session as its workflow needs it, its reminders computed."""
        return SessionState(
            session_id=session.session_id,
            rev=session.rev,
            status=session.status,
            ends_at=session.ends_at,
            reminders=upcoming(session),
            arm_seconds=arm_seconds(session.session_id, self._arm_window),
        )

    async def close(self) -> None:
        """Let dispatches under way finish."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_WITHIN):
                while self._under_way:
                    await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        self._waiting.clear()  # these rows stay; a sweeper dispatches them
        for task in self._under_way:
            task.cancel()
        await self._stop_batches()

    async def _stop_batches(self) -> None:
        await self._reads.stop()
        await self._settles.stop()

    async def _lease(self, most: int, unhurried: int | None) -> Sequence[outbox.OutboxEntry]:
        held = frozenset(self._held)
        async with self._sessions.begin() as db:
            if held:
                await outbox.give_back(db, held)
            due = await outbox.lease_due(db, most, unhurried) if most else ()
        self._held -= held
        return due

    def _dispatch_next(self) -> None:
        while self._waiting and len(self._under_way) < _AT_ONCE:
            first = self._waiting.pop(0)
            task = asyncio.create_task(self.dispatch(first.entry), context=first.context)
            self._under_way.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._dispatch_next()

    async def _dispatch(self, entry: outbox.OutboxEntry) -> None:
        parent = tracing.context_of(entry.traceparent)
        with tracing.span(f"dispatch {entry.subject_kind}", tracing.Kind.PRODUCER, parent, {}):
            async with asyncio.timeout(_DISPATCH_TIMEOUT):
                await self._bring_up_to_date(entry)

    async def _bring_up_to_date(self, entry: outbox.OutboxEntry) -> None:
        match entry.subject_kind:
            case fasting_sessions.OUTBOX_KIND:
                await self._remind_as(entry)
                return
            case messages.OUTBOX_KIND:
                await self._hand_off(entry.subject_id)
            case redrives.OUTBOX_KIND:
                await self._redrive(entry.subject_id)
            case test_pushes.OUTBOX_KIND:
                await self._test(entry.subject_id)
            case webhooks.OUTBOX_KIND:
                await self._follow(entry.subject_id)
            case unknown:  # a newer release wrote it and will dispatch it
                raise LookupError(unknown)
        async with self._sessions.begin() as db:
            await outbox.settle(db, entry.id)

    async def _remind_as(self, entry: outbox.OutboxEntry) -> None:
        """Repeat until the session has not changed meanwhile, so that a slow dispatch leaves no old state."""
        is_settled = False
        while not is_settled:
            session = await self._reads.ask(entry.subject_id)
            if session is not None:
                await starts.remind_as(self._client, self.state_of(session))
            dispatched = Dispatched(entry.id, entry.subject_id, None if session is None else session.rev)
            is_settled = await self._settles.ask(dispatched)

    async def _read_all(self, session_ids: Sequence[UUID]) -> Sequence[FastingSession | Exception | None]:
        async with self._sessions() as db:
            read = await fasting_sessions.read_all(db, set(session_ids))
        return [
            Unreadable("fasting session") if each in read and read[each] is None else read.get(each)
            for each in session_ids
        ]

    async def _settle_all(self, dispatched: Sequence[Dispatched]) -> Sequence[bool]:
        async with self._sessions.begin() as db:
            settled = await fasting_sessions.settle_all(db, dispatched)
        return [each.outbox_id in settled for each in dispatched]

    async def _hand_off(self, message_id: UUID) -> None:
        async with self._sessions() as db:
            message = await handoffs.posted(db, message_id)
        if message is not None:
            await starts.hand_off(self._client, HandoffState(message_id, message.conversation_id, paged=True))

    async def _redrive(self, task_id: UUID) -> None:
        async with self._sessions() as db:
            state = await redrives.under_way(db, task_id)
        if state is not None:
            await starts.redrive(self._client, state)

    async def _test(self, test_push_id: UUID) -> None:
        async with self._sessions() as db:
            state = await test_pushes.under_way(db, test_push_id)
        if state is not None:
            await starts.test(self._client, state)

    async def _follow(self, webhook_id: UUID) -> None:
        async with self._sessions() as db:
            is_wanted = await webhooks.exists(db, webhook_id)
        await (starts.follow if is_wanted else starts.stop_following)(self._client, webhook_id)

    async def _postpone(self, entry: outbox.OutboxEntry, error: str) -> None:
        try:
            async with self._sessions.begin() as db:
                await outbox.postpone(db, entry.id, entry.attempts, error)
        except Exception as trouble:  # noqa: BLE001 -- the lease expires, or is given back
            self._held.add(entry.id)
            log.warning("postponing a dispatch failed", outbox_id=entry.id, error=type(trouble).__name__)


def _name(error: Exception) -> str:
    """Name an error without its text, which may hold what the database must not keep."""
    return f"Temporal: {error.status.name}" if isinstance(error, RPCError) else type(error).__name__
