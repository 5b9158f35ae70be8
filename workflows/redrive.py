"""One durable workflow per push task that a person redrove, and per test push: the same sends, with all checks."""

from collections import Counter
from typing import assert_never

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from workflows.fan_out import never_over, send_all
from workflows.status import Pushes, clock

with workflow.unsafe.imports_passed_through():
    from domain.kinds import RULES, Subject
    from domain.naming import (
        CONVERSATION_ID_ATTRIBUTE,
        HANDOFF_STATE_ATTRIBUTE,
        MESSAGE_ID_ATTRIBUTE,
        REMINDER_STATE_ATTRIBUTE,
        SESSION_ID_ATTRIBUTE,
    )
    from domain.push import SentPush
    from operations.redrive import RedriveState


def about(ask: RedriveState, state: str) -> dict[str, str]:
    """Give the search attributes of a redrive, as the workflow of its reminder or message has them."""
    message = {MESSAGE_ID_ATTRIBUTE: str(ask.message_id)} if ask.message_id else {}
    match RULES[ask.send.kind].subject:
        case Subject.SESSION:
            return {SESSION_ID_ATTRIBUTE: str(ask.conversation_id), REMINDER_STATE_ATTRIBUTE: state}
        case Subject.MESSAGE:
            return {CONVERSATION_ID_ATTRIBUTE: str(ask.conversation_id), HANDOFF_STATE_ATTRIBUTE: state, **message}
        case Subject.NOTHING:
            return {}
        case never:
            assert_never(never)


@workflow.defn
class Redrive:
    """Sends one push task that a person redrove.

    It decides nothing: the last check withdraws a push that is no longer useful. The signal brings another redrive that
    comes while this one closes, or a new address of the push.
    """

    @workflow.init
    def __init__(self, ask: RedriveState) -> None:
        """Take the task."""
        self._is_wanted, self._ask = True, ask
        self._pushes = Pushes()

    @workflow.run
    async def run(self, _: RedriveState) -> str:
        """Run until the task is finished; returns its state."""
        sends: tuple[SentPush, ...] = ()
        while self._is_wanted:
            self._is_wanted, ask = False, self._ask
            self._pushes.begin([ask.send])
            self._describe(f"its answer, until {clock(ask.expires_at)} at the latest")
            sends = await send_all([ask.send], ask.due_at, ask.expires_at, never_over, self._pushes.end)
        [sent] = sends
        self._describe("nothing")
        attributes = about(self._ask, sent.state).items()
        if attributes and workflow.patched("state-in-the-end"):
            workflow.upsert_search_attributes(
                [SearchAttributeKey.for_keyword(name).value_set(to) for name, to in attributes]
            )
        return sent.state

    def _describe(self, waiting_for: str) -> None:
        workflow.set_current_details(f"Waits for **{waiting_for}**.\n\n{self._pushes.table()}")

    @workflow.signal
    def again(self, ask: RedriveState | None = None) -> None:  # None: an older release's relay
        """Take a redrive, the first or another."""
        self._is_wanted, self._ask = True, ask or self._ask


with workflow.unsafe.imports_passed_through():
    from domain.push import SentPush
    from operations.diagnostic_push import TestPushState


@workflow.defn(name="TestPush")
class DiagnosticPush:
    """Sends a test push to the phones it was planned for."""

    @workflow.init
    def __init__(self, _: TestPushState) -> None:
        """Begin without pushes."""
        self._pushes = Pushes()

    @workflow.run
    async def run(self, ask: TestPushState) -> dict[str, int]:
        """Run until each push is finished; returns their number by state."""
        waiting_for = f"the providers' answers, until {clock(ask.expires_at)} at the latest"

        def on_sent(sent: SentPush) -> None:
            self._pushes.end(sent)
            self._describe(waiting_for)

        self._pushes.begin(ask.sends)
        self._describe(waiting_for)
        sent = await send_all(ask.sends, ask.due_at, ask.expires_at, never_over, on_sent)
        self._describe("nothing")
        return dict(Counter(each.state.value for each in sent))

    def _describe(self, waiting_for: str) -> None:
        workflow.set_current_details(f"Waits for **{waiting_for}**.\n\n{self._pushes.table()}")
