"""Plan a handoff: ask the database who has to be told of a message by push, now."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from temporalio import activity

from db import handoffs, preferences, push_tasks, withheld_pushes
from db.engine import Sessions, present_instant
from db.models import DeviceToken
from db.withheld_pushes import About, Whom
from domain.handoff import PRESENCE_TRUSTED, Heed, Means, Recipient, means, unneeded
from domain.kinds import RULES, Kind
from domain.preferences import Preferences
from domain.wire import PlanHandoff, PlannedHandoff


class HandoffPlanning:
    """The local activity of `MessageHandoff`; one transaction, which may be repeated."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @activity.defn
    async def plan_handoff(self, ask: PlanHandoff) -> PlannedHandoff:
        """Plan a push for each phone that needs one; phones planned for before keep theirs."""
        async with self._sessions.begin() as db:
            message = await handoffs.posted(db, ask.message_id)
            if message is None:
                return PlannedHandoff()
            found = await handoffs.recipients(db, ask.message_id)
            wishes = await preferences.of_users(db, {device.user_id for device, _ in found})
            now = await present_instant(db)
            told = [
                (device, means(recipient, wishes.get(device.user_id, Preferences()), now, ask.heed))
                for device, recipient in found
            ]
            of_use = RULES[Kind.MESSAGE].of_use
            assert of_use is not None
            due = push_tasks.DueMessage(
                message_id=ask.message_id,
                kind=Kind.MESSAGE,
                conversation_id=message.conversation_id,
                reminder_minutes=None,
                collapse_key=RULES[Kind.MESSAGE].collapse_key(message.conversation_id),
                due_at=message.created_at,
                expires_at=message.created_at + of_use,
                late_since=message.created_at + PRESENCE_TRUSTED if ask.heed is Heed.NOTHING else None,
            )
            await push_tasks.plan(db, due, [device for device, by in told if by is Means.PUSH])
            counts = Counter(by for _, by in told)
            if not counts[Means.STREAM]:
                about = About(Kind.MESSAGE, message.conversation_id, ask.message_id)
                await withheld_pushes.note(db, about, _silent(found, wishes, now))
                await handoffs.note_decided(db, ask.message_id)
            sends = await push_tasks.pending_of(db, ask.message_id)
            return PlannedHandoff(tuple(sends), due.due_at, due.expires_at, counts[Means.STREAM], counts[Means.SYNC])


def _silent(
    found: Sequence[tuple[DeviceToken, Recipient]], wishes: Mapping[str, Preferences], now: datetime
) -> dict[Whom, str]:
    """Say who gets no push, and why: a wish silences a person, what was read only the phone that read it."""
    return {
        (device.user_id, device.installation_id if recipient.has_read else None): reason
        for device, recipient in found
        if (reason := unneeded(recipient, wishes.get(device.user_id, Preferences()), now))
    }
