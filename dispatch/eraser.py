"""Goes on with the erasures of people: their rows, then their workflows, then their name in the erasure itself.

It runs beside Temporal, so the rows go while Temporal is away. Any worker goes on where another one stopped.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from db import erasures, fasting_sessions, messages
from db.engine import Sessions
from db.erasures import Erasing, ErasureSubject
from domain.naming import (
    MESSAGE_ID_ATTRIBUTE,
    handoff_workflow_id,
    redrive_workflow_id,
    reminder_workflow_id,
    test_push_workflow_id,
)
from operations import diagnostic_push as test_pushes
from operations import redrive as redrives
from operations.erasure import erase_rows, others_have_ended
from sending.precheck import ATTEMPT_LEASE

_EVERY = 1.0  # seconds between looks when nothing is due
_LASTS = 30.0  # seconds of one turn at most; shorter than the lease
_ROWS_FOR = 3.0  # seconds of one turn that rows are deleted
_AT_ONCE = 5  # questions to Temporal under way: few, since reminders need it
_WORKFLOWS_FOR = 3.0  # seconds of one turn in which another page of workflows is begun
_PAGE = 50  # workflows at once
_MAX_RUNS = 500  # runs of the workflows of a page
_SOON = timedelta(milliseconds=200)
_LONGEST_BACK_OFF = timedelta(minutes=1)
_RPC_TIMEOUT = timedelta(seconds=5)
_WORKFLOWS = {
    fasting_sessions.OUTBOX_KIND: reminder_workflow_id,
    messages.OUTBOX_KIND: handoff_workflow_id,
    redrives.OUTBOX_KIND: redrive_workflow_id,
    test_pushes.OUTBOX_KIND: test_push_workflow_id,
}

log = structlog.get_logger()


class Eraser:
    """Goes on with one erasure at a time, the longest waiting first, each for a few seconds."""

    def __init__(self, sessions: Sessions, client: Client) -> None:
        self._sessions = sessions
        self._client = client
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def erase_forever(self) -> None:
        """Go on with what is due, until cancelled; errors are logged, and the next turn tries again."""
        while True:
            worked = False
            try:
                worked = await self.work()
            except Exception as error:  # noqa: BLE001 -- an eraser that dies is worse than any error
                log.warning("erasing failed", error=type(error).__name__)
            if not worked:
                await asyncio.sleep(_EVERY)

    async def work(self) -> bool:
        """Take one turn at the erasure that waits for longest; False when none is due."""
        async with self._sessions.begin() as db:
            erasing = await erasures.lease_due(db)
        if erasing is None:
            return False
        wait, attempts = _SOON, 0
        try:
            async with asyncio.timeout(_LASTS):
                is_done = await self._go_on(erasing)
        except Exception as error:  # noqa: BLE001 -- others are erased meanwhile
            is_done, attempts = False, erasing.attempts + 1
            wait = min(timedelta(seconds=2.0 ** min(attempts, 10)), _LONGEST_BACK_OFF)
            log.warning("erasure postponed", erasure_id=str(erasing.id), attempts=attempts, error=type(error).__name__)
        async with self._sessions.begin() as db:
            if is_done:
                await erasures.finish(db, erasing.id)
            else:
                await erasures.go_on_later(db, erasing.id, wait, attempts)
        if is_done:
            log.info("person erased", erasure_id=str(erasing.id))
        return True

    async def _go_on(self, erasing: Erasing) -> bool:
        """Tell whether nothing is left, and no transaction is open that has seen something of it."""
        if not await erase_rows(self._sessions, erasing, ATTEMPT_LEASE, within=_ROWS_FOR):
            return False
        return await self._workflows_are_gone(erasing.id) and await others_have_ended(self._sessions)

    async def _workflows_are_gone(self, erasure_id: UUID) -> bool:
        """End the workflows of what was deleted, and delete their histories; tells whether none is left.

        Temporal deletes a moment later, or half a minute: meanwhile the next pages are begun, and the next turn comes
        back to these. A relay may be dispatching a subject that is in the outbox. It will find no row, and settle it.
        """
        began = time.monotonic()
        until = began + _WORKFLOWS_FOR
        last: ErasureSubject | None = None
        while began < until:
            async with self._sessions() as db:
                page = await erasures.subjects(db, erasure_id, last, _PAGE)
            if not page:
                break
            gone = await self._without_workflow(page)
            async with self._sessions.begin() as db:
                await erasures.settle(db, erasure_id, gone)
            last = page[-1]
            await asyncio.sleep(min(time.monotonic() - began, 1.0))  # as long as it took: reminders need Temporal, too
            began = time.monotonic()
        async with self._sessions() as db:
            return not await erasures.has_subjects(db, erasure_id)

    async def _without_workflow(self, subjects: Sequence[ErasureSubject]) -> list[ErasureSubject]:
        """Delete these subjects' workflows; gives the subjects of which Temporal has none any more.

        The present run is deleted by its id, since Temporal lists a new workflow late. Earlier runs, and pages of a
        handoff, are only found in the list.
        """
        ids = {_WORKFLOWS[each.kind](each.id): each for each in subjects}
        present = await asyncio.gather(*(self._delete(workflow_id) for workflow_id in ids))
        listed = [run async for run in self._listed(subjects)]
        await asyncio.gather(*(self._delete(*run) for run in listed))
        left = {workflow_id for workflow_id, was_there in zip(ids, present, strict=True) if was_there}
        left |= {workflow_id for workflow_id, _ in listed}
        if left - ids.keys():  # something about one of the messages: ask again about all
            return []
        return [each for workflow_id, each in ids.items() if workflow_id not in left]

    async def _listed(self, subjects: Sequence[ErasureSubject]) -> AsyncIterator[tuple[str, str]]:
        """List runs of these subjects' workflows, and of workflows about these messages."""
        own = ", ".join(f"'{_WORKFLOWS[each.kind](each.id)}'" for each in subjects)
        query = f"WorkflowId IN ({own})"
        about = ", ".join(f"'{each.id}'" for each in subjects if each.kind == messages.OUTBOX_KIND)
        if about:
            query += f" OR {MESSAGE_ID_ATTRIBUTE} IN ({about})"
        runs = self._client.list_workflows(query, limit=_MAX_RUNS, rpc_timeout=_RPC_TIMEOUT)
        async for run in runs:
            yield run.id, run.run_id

    async def _delete(self, workflow_id: str, run_id: str = "") -> bool:
        """End and delete a run, by default the present one; False when there is none."""
        request = DeleteWorkflowExecutionRequest(
            namespace=self._client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        )
        async with self._at_once:
            try:
                await self._client.workflow_service.delete_workflow_execution(request, timeout=_RPC_TIMEOUT)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                return False
        return True
