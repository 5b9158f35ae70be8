"""The schedules of housekeeping: each worker makes them if they are missing; the console shows how they run."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import structlog
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    WorkflowExecutionStatus,
)
from temporalio.service import RPCError, RPCStatusCode

from domain.housekeeping import ShownSchedule, SweepOrphans, findings
from domain.naming import ORPHAN_SWEEP, RETENTION, WORKFLOW_QUEUE
from workflows.housekeeping import OrphanSweep, Retention

_RPC_TIMEOUT = timedelta(seconds=10)
_LOOKS_FOR = timedelta(seconds=2)
_LONGEST_WAIT = 300.0  # seconds
_ASIDE = timedelta(seconds=20)  # after the full minute, when most reminders are due

log = structlog.get_logger()


async def make_schedules_sometime(client: Client) -> None:
    """Make what is missing, however long Temporal takes to let us."""
    wait = 1.0
    while True:
        try:
            await make_schedules(client)
        except Exception as error:  # noqa: BLE001 -- sends go on without housekeeping
            log.warning("schedules not made yet", error=type(error).__name__)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
        else:
            return


async def make_schedules(client: Client) -> None:
    """Make what is missing; one that exists stays as it is, paused by a person or not. Raises what Temporal raises."""
    for name, schedule in _schedules().items():
        with suppress(ScheduleAlreadyRunningError):
            await client.create_schedule(name, schedule, rpc_timeout=_RPC_TIMEOUT)


def _schedules() -> Mapping[str, Schedule]:
    sweep = ScheduleActionStartWorkflow(
        OrphanSweep.run,
        SweepOrphans(),
        id=ORPHAN_SWEEP,
        task_queue=WORKFLOW_QUEUE,
        execution_timeout=timedelta(minutes=10),  # one that hangs must not keep the next ones from running
        static_summary="Looks for fasts, messages and push tasks that lost their workflow",
    )
    retention = ScheduleActionStartWorkflow(
        Retention.run,
        id=RETENTION,
        task_queue=WORKFLOW_QUEUE,
        execution_timeout=timedelta(hours=2),
        static_summary="Deletes what was kept long enough",
    )
    return {
        ORPHAN_SWEEP: _every(timedelta(minutes=1), sweep, "docs/operations.md, Orphans"),
        RETENTION: _every(timedelta(hours=1), retention, "docs/operations.md, Retention"),
    }


def _every(interval: timedelta, action: ScheduleActionStartWorkflow, note: str) -> Schedule:
    return Schedule(
        action=action,
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval, offset=_ASIDE)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=1)),
        state=ScheduleState(note=note),
    )


async def latest_runs(client: Client) -> list[ShownSchedule]:
    """Tell of each schedule when it last ran, and what it found; raises what Temporal raises."""
    return list(await asyncio.gather(*(_latest_run(client, name) for name in _schedules())))


async def _latest_run(client: Client, name: str) -> ShownSchedule:
    shown = ShownSchedule(name, None, "missing", None, None)
    with _what_is_not_there():
        described = await client.get_schedule_handle(name).describe(rpc_timeout=_LOOKS_FOR)
        next_at = next(iter(described.info.next_action_times), None)
        shown = replace(shown, state=None, next_at=None if described.schedule.state.paused else next_at)
        if described.info.recent_actions:
            latest = described.info.recent_actions[-1]
            shown = replace(shown, started_at=latest.started_at)
            assert isinstance(latest.action, ScheduleActionExecutionStartWorkflow)
            run = client.get_workflow_handle(latest.action.workflow_id, run_id=latest.action.first_execution_run_id)
            status = (await run.describe(rpc_timeout=_LOOKS_FOR)).status
            shown = replace(shown, state=status.name.lower() if status else None)
            if status is WorkflowExecutionStatus.COMPLETED:
                shown = replace(shown, found=findings(name, await run.result(rpc_timeout=_LOOKS_FOR)))
    return shown


@contextmanager
def _what_is_not_there() -> Iterator[None]:
    """Leave it out: a schedule that nobody made yet, or a run so old that Temporal has let it go."""
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
