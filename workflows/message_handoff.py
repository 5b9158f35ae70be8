"""One durable workflow per message: plans as late as possible, and pushes to the phones that sleep."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from uuid import UUID

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ChildWorkflowError

from workflows.fan_out import LOCAL_RETRY, LOCAL_TIMEOUT, LOCAL_WAIT, never_over, send_all

with workflow.unsafe.imports_passed_through():
    from activities.handoff import HandoffPlanning
    from domain.handoff import PRESENCE_TRUSTED, Heed
    from domain.naming import HANDOFF_STATE_ATTRIBUTE, sending_workflow_id
    from domain.push import TaskState
    from domain.wire import HandoffState, PlanHandoff, PlannedHandoff, SendPage

PAGE = 100  # sends in one history: some 600 events at the most

_HANDOFF_STATE = SearchAttributeKey.for_keyword(HANDOFF_STATE_ATTRIBUTE)


@workflow.defn
class SendingPage:
    """Makes the sends of one page of a large fan-out."""

    @workflow.run
    async def run(self, page: SendPage) -> dict[str, int]:
        """Live until each send is finished; returns how many came to what."""
        return await _send_page(page)


@workflow.defn
class MessageHandoff:
    """Hands one accepted message off to the phones that sleep.

    Whoever is connected is left to the stream for some seconds; who has not said by then that the message arrived is
    pushed after all. What was read meanwhile is withdrawn by the last-moment check.
    """

    @workflow.init
    def __init__(self, ask: HandoffState) -> None:
        """Know the message."""
        self._message_id = ask.message_id
        self._begun: set[UUID] = set()
        self._pages = 0

    @workflow.run
    async def run(self, _: HandoffState) -> str:
        """Live until each push is finished; returns what they came to."""
        planned = await self._plan(Heed.PRESENCE)
        sending = self._send(planned)
        if planned.streaming:
            workflow.set_current_details(f"Left to their open streams: {planned.streaming} phones.")
            await workflow.sleep(PRESENCE_TRUSTED, summary="until open streams have had their time")
            sending += self._send(await self._plan(Heed.NOTHING))
        came_to = Counter[str]()
        for counts in await asyncio.gather(*sending):
            came_to.update(counts)
        outcome = next((state for state in (TaskState.ACCEPTED, TaskState.DEAD) if came_to[state]), "no_push")
        workflow.upsert_search_attributes([_HANDOFF_STATE.value_set(outcome)])
        told = ", ".join(f"{count} {state}" for state, count in sorted(came_to.items()))
        workflow.set_current_details(f"Pushes: {told or 'none'}; without one: {planned.quiet} phones.")
        return outcome

    def _send(self, planned: PlannedHandoff) -> list[asyncio.Task[Mapping[str, int]]]:
        """Start what is planned and not yet begun: a few in this history, more in pages of their own."""
        sends = [send for send in planned.sends if send.task_id not in self._begun]
        if not sends or planned.due_at is None or planned.expires_at is None:
            return []
        self._begun.update(send.task_id for send in sends)
        workflow.set_current_details(f"On their way: {len(self._begun)} pushes.")
        cuts = range(0, len(sends), PAGE)
        pages = [SendPage(tuple(sends[cut : cut + PAGE]), planned.due_at, planned.expires_at) for cut in cuts]
        if len(pages) == 1:
            return [asyncio.create_task(_send_page(pages[0]))]
        return [asyncio.create_task(self._send_apart(page)) for page in pages]

    async def _send_apart(self, page: SendPage) -> Mapping[str, int]:
        self._pages += 1
        try:
            return await workflow.execute_child_workflow(
                SendingPage.run,
                page,
                id=sending_workflow_id(self._message_id, self._pages),
                static_summary=f"{len(page.sends)} pushes of message {self._message_id}",
            )
        except ChildWorkflowError:  # terminated by hand: the orphan sweep has its pushes, the other pages go on
            return {"orphaned": len(page.sends)}

    async def _plan(self, heed: Heed) -> PlannedHandoff:
        return await workflow.execute_local_activity_method(
            HandoffPlanning.plan_handoff,
            PlanHandoff(self._message_id, heed),
            start_to_close_timeout=LOCAL_TIMEOUT,
            retry_policy=LOCAL_RETRY,
            local_retry_threshold=LOCAL_WAIT,
            summary=f"heeding {heed.value}",
        )


async def _send_page(page: SendPage) -> dict[str, int]:
    sent = await send_all(page.sends, page.due_at, page.expires_at, never_over)
    return dict(Counter(each.state.value for each in sent))
