"""Plan a handoff: which phones get a push of a message now, and whose collapse group is free for it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from db import collapse_groups, handoffs, preferences, push_tasks, withheld_pushes
from db.collapse_groups import CollapseGroupStanding
from db.engine import Sessions, present_instant
from db.handoffs import HandoffPhone, Posted
from db.withheld_pushes import About, Whom
from domain.kinds import RULES, Kind
from domain.messages import (
    BURST,
    IDLE,
    IN_BETWEEN,
    PRESENCE_TRUSTED,
    CollapseGroupPlan,
    DeliveryChannel,
    PresencePolicy,
    Recipient,
    channel_for,
    planned_for,
    rest_after,
    unneeded,
)
from domain.preferences import Preferences
from domain.push import PlannedSend, TaskState
from sending.precheck import ATTEMPT_LEASE

PAGE = 100  # sends in one answer, and in one history: at most some 600 events

_AT_ONCE = 3  # plans at a time in one process: the other connections are for reminders
_MAX_WAITING = 20  # plans; a handoff beyond them comes back later, so that they do not fill the worker's slots

_ByChannel = Mapping[DeliveryChannel, Sequence[HandoffPhone]]


@dataclass(frozen=True, slots=True)
class HandoffState:
    """A message to hand off: the input of `MessageHandoff`."""

    message_id: UUID
    conversation_id: UUID
    paged: bool = False  # its plan comes in pages and may be repeated; False: an older release started it


@dataclass(frozen=True, slots=True)
class PlanHandoff:
    """Plan the pushes of a message."""

    message_id: UUID
    heed: PresencePolicy
    paged: bool = False  # the first page of sends is enough; False: an older release's workflow wants all


@dataclass(frozen=True, slots=True)
class MoreSends:
    """Read the next page of a message's sends."""

    message_id: UUID
    after: "PlannedSend"  # the last one of the page before


@dataclass(frozen=True, slots=True)
class PlannedHandoff:
    """The sends that a message needs now."""

    sends: tuple[PlannedSend, ...] = ()
    due_at: datetime | None = None  # None: there is no such message
    expires_at: datetime | None = None
    streaming: int = 0  # phones with an open stream
    quiet: int = 0  # phones that have read it, or get no push by preference
    more: bool = False  # there is another page of sends
    later: int = 0  # phones whose collapse group is taken for the moment
    again_in: float = 0.0  # seconds until the next look at those


@dataclass(frozen=True, slots=True)
class SendPage:
    """Sends of one fan-out, few enough for one history: the input of `SendingPage`."""

    sends: tuple[PlannedSend, ...]
    due_at: datetime
    expires_at: datetime


class HandoffPlanning:
    """The local activities of `MessageHandoff`; one transaction each, which may be repeated."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    @activity.defn
    async def plan_handoff(self, ask: PlanHandoff) -> PlannedHandoff:
        """Plan a push for each phone that needs one and whose collapse group is free; earlier plans stay.

        If a later message will replace it, the push is planned as withdrawn. The workflow of an older release does not
        repeat this: it gets all sends at once, and the check before each call sorts them out.
        """
        if self._waiting >= _MAX_WAITING:
            return _come_back()
        self._waiting += 1
        try:
            async with self._turns:
                return await self._plan(ask)
        finally:
            self._waiting -= 1

    @activity.defn
    async def more_sends(self, ask: MoreSends) -> PlannedHandoff:
        """Give the next page of a message's planned sends."""
        async with self._sessions() as db:
            sends = await push_tasks.pending_of(db, ask.message_id, after=ask.after, most=PAGE + 1)
        return PlannedHandoff(tuple(sends[:PAGE]), more=len(sends) > PAGE)

    async def _plan(self, ask: PlanHandoff) -> PlannedHandoff:
        async with self._sessions.begin() as db:
            message = await handoffs.begin(db, ask.message_id)
            if message is None:
                return PlannedHandoff()
            recipients = await handoffs.recipients(db, ask.message_id)
            by_user = await preferences.of_users(db, {phone.user_id for phone, _ in recipients})
            now = await present_instant(db)
            due = _due_message(ask, message)
            by = _by_channel(
                (channel_for(recipient, by_user.get(phone.user_id, Preferences()), now, ask.heed), phone)
                for phone, recipient in recipients
            )
            new = [phone for phone in by[DeliveryChannel.PUSH] if not phone.has_push]
            looks: list[timedelta] = []
            if ask.paged:
                looks = await _plan_groups(db, ask.heed, message, due, new, now)
            else:
                await push_tasks.plan(db, due, new, late_since=_late_since(ask.heed, due, new, {}))
            if not by[DeliveryChannel.STREAM] and not looks:
                about = About(Kind.MESSAGE, message.conversation_id, ask.message_id)
                await withheld_pushes.note(db, about, _withheld(recipients, by_user, now))
                await handoffs.note_decided(db, ask.message_id)
            sends = await push_tasks.pending_of(db, ask.message_id, most=PAGE + 1 if ask.paged else None)
            return PlannedHandoff(
                sends=tuple(sends[:PAGE] if ask.paged else sends),
                due_at=due.due_at,
                expires_at=due.expires_at,
                streaming=len(by[DeliveryChannel.STREAM]),
                quiet=len(by[DeliveryChannel.SYNC]),
                more=ask.paged and len(sends) > PAGE,
                later=len(looks),
                again_in=max(IN_BETWEEN, min(looks, default=IN_BETWEEN)).total_seconds() if looks else 0.0,
            )


async def _plan_groups(
    db: AsyncSession,
    policy: PresencePolicy,
    message: Posted,
    due: push_tasks.DueMessage,
    phones: Sequence[HandoffPhone],
    now: datetime,
) -> list[timedelta]:
    """Plan the pushes to these phones; gives the wait for each phone whose collapse group is taken.

    While another message of the conversation is being planned, all groups are taken.
    """
    if not phones:
        return []
    installation_ids = [phone.installation_id for phone in phones]
    standing: Mapping[UUID, CollapseGroupStanding] = {}
    if message.is_alone:
        standing = await collapse_groups.standings(db, due, installation_ids, now, ATTEMPT_LEASE)
    is_quiet = message.is_alone and all(_is_idle(each, now) and not each.taken for each in standing.values())
    awaiting = set() if is_quiet else await handoffs.users_awaiting_a_later(db, message)
    groups = {
        phone.installation_id: _group_plan(standing.get(phone.installation_id), phone.user_id in awaiting, now)
        for phone in phones
    }
    by = _by_channel((planned_for(groups[phone.installation_id]), phone) for phone in phones)
    going = {phone.installation_id: standing[phone.installation_id] for phone in by[DeliveryChannel.PUSH]}
    await collapse_groups.supersede(db, [task_id for each in going.values() for task_id in each.behind])
    rests = {each: state.planned_at + _rest_after(state, now) for each, state in going.items() if state.planned_at}
    await push_tasks.plan(
        db, due, by[DeliveryChannel.PUSH], late_since=_late_since(policy, due, by[DeliveryChannel.PUSH], rests)
    )
    await push_tasks.plan(db, due, by[DeliveryChannel.LATER_MESSAGE], TaskState.WITHDRAWN, "superseded")
    await collapse_groups.note_planned(
        db, due.collapse_key, {each: _burst(state, now) + 1 for each, state in going.items()}
    )
    return [groups[phone.installation_id].rests_for for phone in by[DeliveryChannel.LATER]]


def _group_plan(state: CollapseGroupStanding | None, newer_to_come: bool, now: datetime) -> CollapseGroupPlan:
    if state is None:
        return CollapseGroupPlan(newer_to_come=newer_to_come, is_taken=True)
    return CollapseGroupPlan(
        newer_planned=state.newer,
        newer_to_come=newer_to_come,
        is_taken=state.taken,
        rests_for=_rest(state, now),
        is_idle=_is_idle(state, now),
    )


def _come_back() -> PlannedHandoff:
    """Say that nothing was planned, because too many plans are waiting."""
    return PlannedHandoff(later=1, again_in=IN_BETWEEN.total_seconds())


def _due_message(ask: PlanHandoff, message: Posted) -> push_tasks.DueMessage:
    rules = RULES[Kind.MESSAGE]
    assert rules.useful_for is not None
    return push_tasks.DueMessage(
        message_id=ask.message_id,
        kind=Kind.MESSAGE,
        conversation_id=message.conversation_id,
        reminder_minutes=None,
        collapse_key=rules.collapse_key(message.conversation_id),
        due_at=message.created_at,
        expires_at=message.created_at + rules.useful_for,
    )


def _by_channel(channels: Iterable[tuple[DeliveryChannel, HandoffPhone]]) -> _ByChannel:
    by: dict[DeliveryChannel, list[HandoffPhone]] = {each: [] for each in DeliveryChannel}
    for how, phone in channels:
        by[how].append(phone)
    return by


def _is_idle(state: CollapseGroupStanding, now: datetime) -> bool:
    return state.planned_at is None or state.planned_at < now - IDLE


def _burst(state: CollapseGroupStanding, now: datetime) -> int:
    """Count the pushes of the current burst; 0 if it is over."""
    return 0 if state.planned_at is None or state.planned_at < now - BURST else state.burst


def _rest(state: CollapseGroupStanding, now: datetime) -> timedelta:
    if state.planned_at is None:
        return timedelta(0)
    return max(state.planned_at + _rest_after(state, now) - now, timedelta(0))


def _rest_after(state: CollapseGroupStanding, now: datetime) -> timedelta:
    return rest_after(_burst(state, now))


def _late_since(
    policy: PresencePolicy, due: push_tasks.DueMessage, phones: Sequence[HandoffPhone], rests: Mapping[UUID, datetime]
) -> dict[UUID, datetime]:
    """Say since when a push counts as late that was meant to wait for an open stream or the rest of its group."""
    streamed = due.due_at + PRESENCE_TRUSTED if policy is PresencePolicy.NOTHING else due.due_at
    meant = {each.installation_id: max(streamed, rests.get(each.installation_id, streamed)) for each in phones}
    return {installation_id: at for installation_id, at in meant.items() if at > due.due_at}


def _withheld(
    recipients: Sequence[tuple[HandoffPhone, Recipient]], by_user: Mapping[str, Preferences], now: datetime
) -> dict[Whom, str]:
    """Say who gets no push, and why: by a person's preferences, a phone's own clock, or because it has read it."""
    silent: dict[Whom, str] = {}
    for phone, recipient in recipients:
        preferred = by_user.get(phone.user_id, Preferences())
        if reason := unneeded(recipient, preferred, now):
            hours = preferred.quiet_hours
            by_its_clock = reason == "quiet_hours" and hours is not None and not hours.time_zone
            of_phone = recipient.has_read or by_its_clock
            silent[phone.user_id, phone.installation_id if of_phone else None] = reason
    return silent
