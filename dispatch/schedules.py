"""What is registered in Temporal: search attributes, and the schedule of retention; the console shows its runs.

Each worker registers them again from time to time, because an emptied Temporal has lost them.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
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

from domain.housekeeping import RetentionTarget
from domain.naming import ORPHAN_SWEEP, RETENTION, SEARCH_ATTRIBUTES, WORKFLOW_QUEUE
from workflows.housekeeping import Retention

_RPC_TIMEOUT = timedelta(seconds=10)
_LOOKS_FOR = timedelta(seconds=2)
_AGAIN_AFTER = 60.0  # seconds
_NOT_OURS = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.ALREADY_EXISTS}
_ASIDE = timedelta(seconds=20)  # after the full minute, when most reminders are due

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ShownSchedule:
    """A schedule as an operator sees it."""

    name: str
    started_at: datetime | None  # its latest run; None: it never ran
    state: str | None  # of that run: running, completed, failed, …; missing: there is no such schedule
    found: str | None  # in words, once it is completed
    next_at: datetime | None  # None: paused


def findings(name: str, result: Mapping[str, Any]) -> str:
    """Say what a completed run did."""
    words = {"orphans": "push tasks made dead", "sessions": "fasts started again", "handoffs": "messages started again"}
    if name == RETENTION:
        words = {what: f"{what.replace('_', ' ')} deleted" for what in RetentionTarget}
    parts = [f"{result[field]} {text}" for field, text in words.items() if result.get(field)]
    return ", ".join(parts) or "nothing"


async def keep_registered(client: Client, *, every: float = _AGAIN_AFTER) -> None:
    """Register what is missing, now and from time to time, until cancelled; retries while Temporal is away."""
    wait = min(1.0, every)
    while True:
        try:
            await register_attributes(client)
            await make_schedules(client)
        except Exception as error:  # noqa: BLE001 -- sends continue without housekeeping
            log.warning("registering in temporal failed, will retry", error=type(error).__name__)
            wait = min(wait * 2, every)
            await asyncio.sleep(wait)
        else:
            wait = min(1.0, every)
            await asyncio.sleep(every)


async def make_schedules(client: Client) -> None:
    """Make missing schedules; an existing one stays as it is, paused or not. Raises what Temporal raises."""
    for name, schedule in _schedules().items():
        with suppress(ScheduleAlreadyRunningError):
            await client.create_schedule(name, schedule, rpc_timeout=_RPC_TIMEOUT)
    with _skipping_missing():  # an earlier release made it, and its workers make it again when they start
        await client.get_schedule_handle(ORPHAN_SWEEP).delete(rpc_timeout=_RPC_TIMEOUT)


async def register_attributes(client: Client) -> None:
    """Register missing search attributes, where the server allows it; Temporal Cloud does not."""
    operator, namespace = client.operator_service, client.namespace
    try:
        listed = await operator.list_search_attributes(
            ListSearchAttributesRequest(namespace=namespace), timeout=_RPC_TIMEOUT
        )
        missing = set(SEARCH_ATTRIBUTES) - set(listed.custom_attributes)
        if missing:
            wanted = dict.fromkeys(sorted(missing), IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD)
            request = AddSearchAttributesRequest(namespace=namespace, search_attributes=wanted)
            await operator.add_search_attributes(request, timeout=_RPC_TIMEOUT)
            log.warning("search attributes registered", names=sorted(missing))
    except RPCError as error:
        if error.status not in _NOT_OURS:
            raise


def _schedules() -> Mapping[str, Schedule]:
    retention = ScheduleActionStartWorkflow(
        Retention.run,
        id=RETENTION,
        task_queue=WORKFLOW_QUEUE,
        execution_timeout=timedelta(hours=2),
        static_summary="Deletes what has been kept long enough",
    )
    return {RETENTION: _every(timedelta(hours=1), retention, "docs/operations.md, Retention")}


def _every(interval: timedelta, action: ScheduleActionStartWorkflow, note: str) -> Schedule:
    return Schedule(
        action=action,
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval, offset=_ASIDE)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=1)),
        state=ScheduleState(note=note),
    )


async def latest_runs(client: Client) -> list[ShownSchedule]:
    """Say of each schedule when it last ran, and what it did; raises what Temporal raises."""
    return list(await asyncio.gather(*(_latest_run(client, name) for name in _schedules())))


async def _latest_run(client: Client, name: str) -> ShownSchedule:
    shown = ShownSchedule(name, None, "missing", None, None)
    with _skipping_missing():
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
def _skipping_missing() -> Iterator[None]:
    """Leave out a schedule that does not exist yet, or a run that Temporal has deleted."""
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
