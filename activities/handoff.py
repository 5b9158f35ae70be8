"""Plan a handoff: ask the database who has to be told of a message by push, now."""

from collections import Counter

from temporalio import activity

from db import handoffs, preferences, push_tasks
from db.engine import Sessions, present_instant
from domain.handoff import Means, means
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
            )
            await push_tasks.plan(db, due, [device for device, by in told if by is Means.PUSH])
            counts = Counter(by for _, by in told)
            if not counts[Means.STREAM]:
                await handoffs.note_decided(db, ask.message_id)
            sends = await push_tasks.pending_of(db, ask.message_id)
            return PlannedHandoff(tuple(sends), due.due_at, due.expires_at, counts[Means.STREAM], counts[Means.SYNC])
