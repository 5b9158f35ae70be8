"""The fan-out that all workflows share: one send activity per device, and the true state of each at the end."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityHandle

with workflow.unsafe.imports_passed_through():
    from activities.reminders import CloseTasks, ReminderOpening
    from activities.sending import SEND_BUDGET, PushSending, SendPush
    from domain.kinds import RULES
    from domain.naming import push_queue
    from domain.push import PlannedSend, SentPush, TaskState

LOCAL_TIMEOUT = timedelta(seconds=10)
_LONGEST_WAIT = timedelta(seconds=5)  # without a wait from a provider: the database is away, or a worker was lost
LOCAL_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=_LONGEST_WAIT)
LOCAL_WAIT = timedelta(milliseconds=1)  # longer waits are timers, which delay no worker's shutdown

_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=_LONGEST_WAIT)


async def send_all(
    sends: Sequence[PlannedSend],
    due_at: datetime,
    expires_at: datetime,
    over: Callable[[], str | None],
    on_sent: Callable[[SentPush], None],
) -> tuple[SentPush, ...]:
    """Start all sends at once and wait until each is finished; `over` says when to withdraw them, and why.

    `on_sent` gets each result when it is there. A send that backs off is cancelled at once. One that holds or calls may
    finish, and reports what really happened.
    """
    handles = [_start(send, due_at, expires_at) for send in sends]
    for handle in handles:
        handle.add_done_callback(partial(_report_to, on_sent))
    await workflow.wait_condition(lambda: over() is not None or _all_done(handles))
    reason = over()  # of the withdrawals below, even if the goal moves back meanwhile
    for handle in handles:
        if not handle.done():
            handle.cancel()
    await workflow.wait_condition(lambda: _all_done(handles))
    reported = [_report(handle) for handle in handles]
    unfinished = tuple(send.task_id for send, sent in zip(sends, reported, strict=True) if sent is None)
    closed: tuple[SentPush, ...] = ()
    if unfinished:
        state = TaskState.DEAD if reason is None else TaskState.WITHDRAWN
        closed = await workflow.execute_local_activity_method(
            ReminderOpening.close_tasks,
            CloseTasks(unfinished, state, reason or "time_ran_out"),
            start_to_close_timeout=LOCAL_TIMEOUT,
            retry_policy=LOCAL_RETRY,
            local_retry_threshold=LOCAL_WAIT,
        )
    for sent in closed:
        on_sent(sent)
    return tuple(sent for sent in reported if sent is not None) + closed


def never_over() -> str | None:
    """Withdraw nothing: there is no signal of an end, and the check before each attempt decides."""
    return None


def _start(send: PlannedSend, due_at: datetime, expires_at: datetime) -> ActivityHandle[SentPush]:
    now = workflow.now()
    hold = max(due_at - now, timedelta(0))
    return workflow.start_activity_method(
        PushSending.send_push,
        SendPush(send.task_id, send.environment, hold.total_seconds(), send.app_id, send.kind, send.user_digest),
        task_queue=push_queue(send.provider),
        activity_id=f"send-{send.task_id}",
        summary=f"{send.provider} push task {send.task_id}",
        start_to_close_timeout=hold + SEND_BUDGET,
        schedule_to_close_timeout=max(expires_at - now, SEND_BUDGET),
        retry_policy=_RETRY,
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        priority=Priority(priority_key=RULES[send.kind].urgency),
    )


def _all_done(handles: Sequence[ActivityHandle[SentPush]]) -> bool:
    return all(handle.done() for handle in handles)


def _report_to(on_sent: Callable[[SentPush], None], handle: ActivityHandle[SentPush]) -> None:
    sent = _report(handle)
    if sent is not None:
        on_sent(sent)


def _report(handle: ActivityHandle[SentPush]) -> SentPush | None:
    """Read the result of a send; None if it was cancelled or timed out."""
    if handle.cancelled() or handle.exception() is not None:
        return None
    return handle.result()
