"""`python -m bench.peers.temporal_worker`: a timer and an activity for each reminder, and nothing else."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import uvloop
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bench.peers.sending import Senders

QUEUE = "peers"
_ATTEMPT = timedelta(seconds=20)  # as in Fastbell


@dataclass(frozen=True, slots=True)
class Reminder:
    """What a workflow is started with."""

    provider: str
    token: str
    due: float  # UNIX seconds


@workflow.defn
class Remind:
    """Sleeps until a reminder is due, then has it sent."""

    @workflow.run
    async def run(self, reminder: Reminder) -> None:
        """Sleep and send; Temporal repeats a send that failed or never ended."""
        due_at = datetime.fromtimestamp(reminder.due, UTC)
        await workflow.sleep(max(due_at - workflow.now(), timedelta(0)))
        await workflow.execute_activity_method(
            Sending.send,
            args=[reminder.provider, reminder.token],
            start_to_close_timeout=_ATTEMPT,
        )


class Sending:
    """Holds the clients."""

    def __init__(self) -> None:
        self._senders = Senders()

    @activity.defn
    async def send(self, provider: str, token: str) -> None:
        """Make one call."""
        await self._senders.send(provider, token)


async def _work() -> None:
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    await Worker(
        client,
        task_queue=QUEUE,
        workflows=[Remind],
        activities=[Sending().send],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_workflow_tasks=100,
        max_concurrent_activities=1000,
    ).run()


if __name__ == "__main__":
    uvloop.run(_work())
