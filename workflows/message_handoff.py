"""One durable workflow per message: plans as late as possible, and pushes to the phones without open streams."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from uuid import UUID

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError

from workflows.fan_out import LOCAL_RETRY, LOCAL_TIMEOUT, LOCAL_WAIT, never_over, send_all
from workflows.status import ABOUT_PAGE, Pushes, clock, found_by

with workflow.unsafe.imports_passed_through():
    from activities.handoff import PAGE, HandoffPlanning, HandoffState, MoreSends, PlanHandoff, PlannedHandoff, SendPage
    from domain.messages import PRESENCE_TRUSTED, PresencePolicy
    from domain.naming import (
        CONVERSATION_ID_ATTRIBUTE,
        HANDOFF_STATE_ATTRIBUTE,
        MESSAGE_ID_ATTRIBUTE,
        sending_workflow_id,
    )
    from domain.push import FAILED, PlannedSend, SentPush, TaskState

PAGE_STARTS = 3  # of one page; who terminates it so often means it
PAGE_REST = timedelta(seconds=5)  # before a lost page starts again, since its handoff may be terminated next

_LOOK = timedelta(seconds=0.1)  # longer after each look at taken groups, so that a day of looks is 10 000 events
_LONGEST_LOOK = timedelta(seconds=60)

_Sending = list[asyncio.Task[Mapping[str, int]]]
_HANDOFF_STATE = SearchAttributeKey.for_keyword(HANDOFF_STATE_ATTRIBUTE)


@workflow.defn
class SendingPage:
    """Makes the sends of one page of a large fan-out."""

    @workflow.run
    async def run(self, page: SendPage) -> dict[str, int]:
        """Run until each send is finished; returns their number by state."""
        pushes = Pushes()
        return await _send_page(page, pushes, lambda: workflow.set_current_details(pushes.table()))


@workflow.defn
class MessageHandoff:
    """Pushes one accepted message to the phones that have not got it.

    A connected phone gets some seconds to acknowledge the message from its stream, and a push if it does not. While an
    earlier message's push is under way to a phone, this one waits, unless a later message replaces it. What was read
    meanwhile is withdrawn by the last check.
    """

    @workflow.init
    def __init__(self, ask: HandoffState) -> None:
        """Take the message."""
        self._message_id = ask.message_id
        self._begun: set[UUID] = set()
        self._conversation_id = ask.conversation_id
        self._paged = ask.paged
        self._pages = 0
        self._pushes = Pushes()
        self._waiting_for = "its plan"

    @workflow.run
    async def run(self, _: HandoffState) -> str:
        """Run until each push is finished; returns the outcome."""
        sending, planned = await (self._send_all() if self._paged else self._send_at_once())
        outcomes = Counter[str]()
        for of_page in await asyncio.gather(*sending):
            outcomes.update(of_page)
        outcome = next((state for state in (TaskState.ACCEPTED, *FAILED) if outcomes[state]), "no_push")
        workflow.upsert_search_attributes([_HANDOFF_STATE.value_set(outcome)])
        counts = ", ".join(f"{count} {state}" for state, count in sorted(outcomes.items()))
        self._describe(f"nothing: {counts or 'no push'}; without a push: {planned.quiet} phones")
        return outcome

    async def _send_all(self) -> tuple[_Sending, PlannedHandoff]:
        """Plan and send repeatedly, until the delivery is decided for each phone."""
        sending: _Sending = []
        policy, looks = PresencePolicy.PRESENCE, 0
        trusted_until = workflow.now() + PRESENCE_TRUSTED
        while True:
            planned = await self._plan(policy)
            sending += await self._send_pages(planned)
            over = planned.expires_at is not None and planned.expires_at <= workflow.now()
            if over or not (planned.streaming or planned.later):
                return sending, planned
            waits = [max(trusted_until - workflow.now(), timedelta(0))] if planned.streaming else []
            if planned.later:
                looks += 1
                waits.append(max(timedelta(seconds=planned.again_in), min(looks * _LOOK, _LONGEST_LOOK)))
            self._describe(f"{planned.streaming} phones' open streams, earlier pushes to {planned.later} phones")
            await workflow.sleep(min(waits), summary="until open streams had their time, or earlier pushes are over")
            if workflow.now() >= trusted_until:
                policy = PresencePolicy.NOTHING

    async def _send_at_once(self) -> tuple[_Sending, PlannedHandoff]:
        """Plan and send as the older release did that started this."""
        planned = await self._plan(PresencePolicy.PRESENCE)
        sending = self._send(planned)
        if planned.streaming:
            self._describe(f"the open streams of {planned.streaming} phones, {PRESENCE_TRUSTED.seconds} s long")
            await workflow.sleep(PRESENCE_TRUSTED, summary="until open streams have had their time")
            sending += self._send(await self._plan(PresencePolicy.NOTHING))
        return sending, planned

    async def _send_pages(self, planned: PlannedHandoff) -> _Sending:
        """Start what is planned: a single page in this history, several in child workflows."""
        if not planned.more:
            return self._send(planned)
        sending: _Sending = []
        page = planned
        while True:
            new = tuple(send for send in page.sends if send.task_id not in self._begun)
            self._begun.update(send.task_id for send in new)
            if new and planned.due_at and planned.expires_at:
                sends = SendPage(new, planned.due_at, planned.expires_at)
                sending.append(asyncio.create_task(self._send_apart(sends)))
            if not page.more:
                return sending
            page = await self._more(page.sends[-1])

    def _send(self, planned: PlannedHandoff) -> _Sending:
        """Start what is planned and not yet begun: a single page in this history, several in child workflows."""
        sends = [send for send in planned.sends if send.task_id not in self._begun]
        if not sends or planned.due_at is None or planned.expires_at is None:
            return []
        self._begun.update(send.task_id for send in sends)
        self._describe(f"{len(self._begun)} pushes to be answered, until {clock(planned.expires_at)} at the latest")
        cuts = range(0, len(sends), PAGE)
        pages = [SendPage(tuple(sends[cut : cut + PAGE]), planned.due_at, planned.expires_at) for cut in cuts]
        if len(pages) == 1:
            return [asyncio.create_task(_send_page(pages[0], self._pushes, self._describe))]
        return [asyncio.create_task(self._send_apart(page)) for page in pages]

    async def _send_apart(self, page: SendPage) -> Mapping[str, int]:
        """Make a page's sends in a child workflow, which is started again if somebody terminates it.

        That makes no send twice, since each is checked against the database.
        """
        self._pages += 1
        workflow_id = sending_workflow_id(self._message_id, self._pages)
        for left in reversed(range(PAGE_STARTS)):
            try:
                return await self._send_as(workflow_id, page)
            except (ChildWorkflowError, WorkflowAlreadyStartedError):  # the latter after a reset by hand
                if not left or workflow.cancellation_reason() is not None or not workflow.patched("pages-start-anew"):
                    break
            await workflow.sleep(PAGE_REST, summary=f"until {workflow_id} starts again")
        return {"orphaned": len(page.sends)}  # the orphan sweep gets them once the other pages are done

    async def _send_as(self, workflow_id: str, page: SendPage) -> Mapping[str, int]:
        return await workflow.execute_child_workflow(
            SendingPage.run,
            page,
            id=workflow_id,
            static_summary=f"{len(page.sends)} pushes of message {self._message_id}",
            static_details=ABOUT_PAGE,
            search_attributes=found_by(
                {
                    MESSAGE_ID_ATTRIBUTE: str(self._message_id),
                    CONVERSATION_ID_ATTRIBUTE: str(self._conversation_id),
                }
            ),
        )

    def _describe(self, waiting_for: str | None = None) -> None:
        self._waiting_for = waiting_for or self._waiting_for
        pages = f"\n\nIn {self._pages} workflows of their own, see Relationships." if self._pages else ""
        workflow.set_current_details(f"Waits for **{self._waiting_for}**.\n\n{self._pushes.table()}{pages}")

    async def _plan(self, policy: PresencePolicy) -> PlannedHandoff:
        return await workflow.execute_local_activity_method(
            HandoffPlanning.plan_handoff,
            PlanHandoff(self._message_id, policy, self._paged),
            start_to_close_timeout=LOCAL_TIMEOUT,
            retry_policy=LOCAL_RETRY,
            local_retry_threshold=LOCAL_WAIT,
            summary=f"presence policy: {policy.value}",
        )

    async def _more(self, after: PlannedSend) -> PlannedHandoff:
        return await workflow.execute_local_activity_method(
            HandoffPlanning.more_sends,
            MoreSends(self._message_id, after),
            start_to_close_timeout=LOCAL_TIMEOUT,
            retry_policy=LOCAL_RETRY,
            local_retry_threshold=LOCAL_WAIT,
            summary=f"sends after {after.task_id}",
        )


async def _send_page(page: SendPage, pushes: Pushes, describe: Callable[[], None]) -> dict[str, int]:
    def on_sent(one: SentPush) -> None:
        pushes.end(one)
        describe()

    pushes.begin(page.sends)
    describe()
    sent = await send_all(page.sends, page.due_at, page.expires_at, never_over, on_sent)
    return dict(Counter(each.state.value for each in sent))
