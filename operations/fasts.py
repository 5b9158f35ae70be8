"""Fasts: start, change and finish any number of them in one transaction. One that may not is refused alone."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import fasting_sessions, outbox, preferences
from db.engine import hold_names
from db.fasting_sessions import StoredFast, Terms
from db.outbox import OutboxEntry
from db.unreadable import Unreadable
from domain.fasts import (
    FIRST_REV,
    FastingSession,
    SessionStatus,
    already_finished,
    check_times,
    finished_status,
    needed_at,
    rescheduled,
)
from domain.preferences import Preferences
from domain.problems import Conflict, DomainError, NotFound, being_erased, too_many_fasts


@dataclass(frozen=True, slots=True)
class Start:
    """Start a fast. None: not given."""

    ends_at: datetime
    started_at: datetime | None
    reminder_minutes: tuple[int, ...] | None
    labels: Mapping[str, str] | None
    request: dict[str, Any]  # all that was given, to recognize a repeat


@dataclass(frozen=True, slots=True)
class Change:
    """Move the goal, change the reminders, or both. None: not given."""

    ends_at: datetime | None
    reminder_minutes: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Finish:
    """End a fast (COMPLETED) or cancel it (CANCELLED)."""

    wanted: SessionStatus


@dataclass(frozen=True, slots=True)
class Order:
    """What a user wants of one fast."""

    user_id: str
    session_id: UUID
    what: Start | Change | Finish
    traceparent: str | None = None  # of its request; None: the present one


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """A fast as it is after an order."""

    session: FastingSession
    is_new: bool  # this order started it


@dataclass(frozen=True, slots=True)
class Carried:
    """What came of orders: an answer for each, in their order, and the dispatches that this process tries first."""

    answers: list[CarriedOut | DomainError]
    entries: list[OutboxEntry]


async def carry_out_free(
    db: AsyncSession, orders: Mapping[int, Order], most: int | None
) -> tuple[dict[int, CarriedOut | DomainError], list[OutboxEntry]]:
    """Carry out, of these orders by their places, those whose locks no other transaction holds. Waits for no lock."""
    ready = await _free(db, orders.values(), most)
    places = [place for place, order in orders.items() if order.session_id in ready]
    carried = await carry_out(db, [orders[place] for place in places], most)
    return dict(zip(places, carried.answers, strict=True)), carried.entries


async def _free(db: AsyncSession, orders: Collection[Order], most: int | None) -> set[UUID]:
    """Lock what these orders need and no other transaction holds; gives the sessions whose orders need nothing else."""
    needed: dict[UUID, set[str]] = {order.session_id: set() for order in orders}
    for order in orders:
        needed[order.session_id] |= _names(order, most)
    wanted = {name for of_one in needed.values() for name in of_one}
    held_by_others, ours = await fasting_sessions.free(db, needed, wanted)
    return {each for each, of_one in needed.items() if of_one <= ours} - held_by_others


def _names(order: Order, most: int | None) -> set[str]:
    """Name the locks of an order besides rows: few, since all of PostgreSQL shares room for some thousands.

    A start has one at least, so that the same start elsewhere is not waited for.
    """
    match order.what:
        case Start(reminder_minutes=minutes):
            one = f"fasting-session/{order.session_id}" if most is None else fasting_sessions.fasts_of(order.user_id)
            return {one, preferences.lock_of(order.user_id)} if minutes is None else {one}
        case Change(ends_at=datetime()):
            return {fasting_sessions.fasts_of(order.user_id)} if most is not None else set()
        case _:
            return set()


async def carry_out(db: AsyncSession, orders: Sequence[Order], most: int | None) -> Carried:
    """Carry out orders; those about one fast in their order. `most`: active fasts that a user may have."""
    if not orders:
        return Carried([], [])
    batch = await _Batch.read(db, orders, most)
    answers = [batch.answer(order) for order in orders]
    changed = batch.changed()
    needs = {each.session_id: needed_at(batch.before(each.session_id), each, batch.now) for each in changed}
    dispatches = outbox.planned_dispatches(needs, batch.now, {order.session_id: order.traceparent for order in orders})
    started = [(each, batch.requests[each.session_id]) for each in changed if each.session_id not in batch.held]
    new = {each.session_id for each, _ in started}
    of_new = [each for each in dispatches if each.subject_id in new]
    stored, entries = await fasting_sessions.start_all(db, started, of_new)
    await fasting_sessions.change_all(db, [each for each in changed if each.session_id not in new])
    of_changed = [each for each in dispatches if each.subject_id not in new]
    entries += await outbox.add_all(db, fasting_sessions.OUTBOX_KIND, of_changed)
    taken = new - stored  # by other requests, a moment ago
    if taken:
        places = [place for place, order in enumerate(orders) if order.session_id in taken]
        again = await carry_out(db, [orders[place] for place in places], most)
        for place, answer in zip(places, again.answers, strict=True):
            answers[place] = answer
        entries += again.entries
    return Carried(answers, entries)


@dataclass(slots=True)
class _Batch:
    """The fasts of a batch, as stored and as the orders so far leave them."""

    now: datetime
    most: int | None
    erased: set[str]
    held: dict[UUID, StoredFast]
    minutes: dict[str, tuple[int, ...]]  # by preference, of users whose starts name none
    counts: dict[str, int]  # active fasts of users who may get one more
    sessions: dict[UUID, FastingSession] = field(default_factory=dict)
    requests: dict[UUID, dict[str, Any]] = field(default_factory=dict)  # of those that these orders start

    @classmethod
    async def read(cls, db: AsyncSession, orders: Sequence[Order], most: int | None) -> "_Batch":
        """Read and lock what the orders need: rows first, as each transaction that locks several of these does."""
        ids, user_ids = {order.session_id for order in orders}, {order.user_id for order in orders}
        held = await fasting_sessions.hold(db, ids, user_ids)
        fasts, now = held.fasts, held.now
        starts = [order for order in orders if isinstance(order.what, Start) and order.session_id not in fasts]
        following = {
            order.user_id for order in starts if isinstance(order.what, Start) and order.what.reminder_minutes is None
        }
        counted: set[str] = set()
        if most is not None:
            counted = {order.user_id for order in starts} | {
                order.user_id for order in orders if _may_reactivate(order, fasts.get(order.session_id), now)
            }
        terms: dict[str, Terms] = {}
        if following | counted:
            await hold_names(db, _locks(counted, following))
            terms = await fasting_sessions.terms_of(db, following | counted)
        wanted = Counter(order.user_id for order in starts)
        if most is not None and (full := {each for each in wanted if terms[each].active + wanted[each] > most}):
            # a repeat may have been started while this waited, and counts already
            missing = {order.session_id for order in starts if order.user_id in full}
            fasts |= (await fasting_sessions.hold(db, missing)).fasts
        default = Preferences().reminder_minutes
        preferred = {each: terms[each].reminder_minutes for each in following}
        minutes = {each: default if found is None else found for each, found in preferred.items()}
        counts = {each: terms[each].active for each in counted}
        sessions = {each: stored.session for each, stored in fasts.items() if stored.session is not None}
        return cls(now, most, held.erased, fasts, minutes, counts, sessions)

    def before(self, session_id: UUID) -> FastingSession | None:
        """Give a session as it is stored; None for a new one."""
        return self.held[session_id].session if session_id in self.held else None

    def changed(self) -> list[FastingSession]:
        """List the sessions that the orders started or changed."""
        return [each for each in self.sessions.values() if each != self.before(each.session_id)]

    def answer(self, order: Order) -> CarriedOut | DomainError:
        """Apply one order to what the ones before have left."""
        try:
            if order.user_id in self.erased:
                raise being_erased()
            match order.what:
                case Start() as start:
                    is_known = order.session_id in self.held or order.session_id in self.sessions
                    return (self._repeat if is_known else self._start)(order, start)
                case Change() as change:
                    return self._change(order, change)
                case Finish() as finish:
                    return self._finish(order, finish)
        except DomainError as error:
            return error

    def _start(self, order: Order, start: Start) -> CarriedOut:
        started_at = start.started_at or self.now
        check_times(started_at, start.ends_at, self.now)
        minutes = start.reminder_minutes
        self._take_room(order.user_id)
        session = FastingSession(
            session_id=order.session_id,
            user_id=order.user_id,
            started_at=started_at,
            ends_at=start.ends_at,
            status=SessionStatus.ACTIVE,
            ended_at=None,
            reminder_minutes=self.minutes[order.user_id] if minutes is None else minutes,
            scheduled_at=self.now,
            rev=FIRST_REV,
            follows_preferences=minutes is None,
            labels=dict(start.labels or {}),
        )
        self.requests[order.session_id] = start.request
        return self._accept(session, is_new=True)

    def _repeat(self, order: Order, start: Start) -> CarriedOut:
        session = self._of_user(order)
        stored = self.held.get(order.session_id)
        if not _asks_for(start, session) and start.request != (
            self.requests[order.session_id] if stored is None else stored.started_with
        ):
            raise Conflict(
                "session-exists", "This fasting session was started with other content. Use PATCH to change it."
            )
        return CarriedOut(session, is_new=False)

    def _change(self, order: Order, change: Change) -> CarriedOut:
        session = self._of_user(order)
        if session.status is not SessionStatus.ACTIVE:
            raise already_finished(session)
        changed = replace(session, ends_at=change.ends_at or session.ends_at)
        if change.reminder_minutes not in {None, session.reminder_minutes}:
            changed = replace(changed, reminder_minutes=change.reminder_minutes, follows_preferences=False)
        if changed == session:
            return CarriedOut(session, is_new=False)
        if change.ends_at is not None:
            check_times(changed.started_at, changed.ends_at, self.now)
        if session.ends_at <= self.now < changed.ends_at:  # it counts as active again
            self._take_room(order.user_id)
        return self._accept(replace(rescheduled(session, changed, self.now), rev=session.rev + 1))

    def _finish(self, order: Order, finish: Finish) -> CarriedOut:
        session = self._of_user(order)
        status = finished_status(session, finish.wanted, self.now)
        if status is None:
            return CarriedOut(session, is_new=False)
        if session.ends_at > self.now and order.user_id in self.counts:
            self.counts[order.user_id] -= 1
        return self._accept(replace(session, status=status, ended_at=self.now, rev=session.rev + 1))

    def _accept(self, session: FastingSession, *, is_new: bool = False) -> CarriedOut:
        self.sessions[session.session_id] = session
        return CarriedOut(session, is_new)

    def _of_user(self, order: Order) -> FastingSession:
        session = self.sessions.get(order.session_id)
        if session is None and order.session_id in self.held:
            raise Unreadable("fasting session")
        if session is None or session.user_id != order.user_id:
            raise NotFound("fasting session")
        return session

    def _take_room(self, user_id: str) -> None:
        if self.most is None:
            return
        if self.counts.get(user_id, 0) >= self.most:
            raise too_many_fasts(self.most)
        self.counts[user_id] = self.counts.get(user_id, 0) + 1


def _locks(counted: Collection[str], following: Collection[str]) -> list[str]:
    """Name what holds off other counts, and changes of the preferences that a new fast follows."""
    return [*map(fasting_sessions.fasts_of, counted), *map(preferences.lock_of, following)]


def _may_reactivate(order: Order, stored: StoredFast | None, now: datetime) -> bool:
    if not isinstance(order.what, Change) or order.what.ends_at is None:
        return False
    return stored is not None and stored.session is not None and stored.session.ends_at <= now


def _asks_for(start: Start, session: FastingSession) -> bool:
    """Tell whether a start matches the session as it is now."""
    return (
        start.ends_at == session.ends_at
        and start.started_at in {None, session.started_at}
        and start.reminder_minutes in {None, session.reminder_minutes}
        and start.labels in (None, session.labels)
    )
