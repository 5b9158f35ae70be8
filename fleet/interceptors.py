"""What activities and workflows pass through: ids in log lines, failures by their type alone, memory that is freed."""

import time
from datetime import timedelta

import structlog
from temporalio import activity
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    UnsandboxedWorkflowRunner,
    WorkflowInstance,
    WorkflowInstanceDetails,
)

from domain.back_off import in_time
from domain.naming import subject_of

_FIRST, _LONGEST = timedelta(seconds=1), timedelta(seconds=30)  # as Temporal waits by `workflows/fan_out.py`

log = structlog.get_logger()
_IDS = ("session_id", "message_id", "task_id")


class NamelessFailures(Interceptor):
    """Replaces unexpected exceptions, whose text may quote a token or a row, before Temporal stores them."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 -- the SDK's name
        """Wrap each activity."""
        return _NamelessInbound(next)


class _NamelessInbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> object:  # noqa: A002 -- the SDK's name
        began = time.monotonic()
        try:
            return await super().execute_activity(input)
        except FailureError:
            raise
        except Exception as error:
            name = type(error).__name__
            log.warning("activity failed", activity=input.fn.__name__, exc_info=error)
            failure = ApplicationError("unexpected error", type=name, next_retry_delay=_next_try(began))
        raise failure  # outside of the handler, so that it does not carry the original as its cause


def _next_try(began: float) -> timedelta | None:
    """Fit one more try in before Temporal gives the activity up; None where the usual delay does."""
    info = activity.info()
    if info.is_local or info.schedule_to_close_timeout is None:
        return None
    elapsed = info.started_time - info.scheduled_time + timedelta(seconds=time.monotonic() - began)
    usual = min(_LONGEST, _FIRST * 2 ** min(info.attempt - 1, 16))
    delay = in_time(usual, info.schedule_to_close_timeout - elapsed)
    return None if delay == usual else delay


class IdsInLogs(Interceptor):
    """Binds workflow and attempt, and ids from the workflow's name and the activity's input."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 -- the SDK's name
        """Wrap each activity."""
        return _BindingInbound(next)


class _BindingInbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> object:  # noqa: A002 -- the SDK's name
        info = activity.info()
        ids = subject_of(info.workflow_id or "")
        for ask in input.args:
            ids |= {name: str(value) for name in _IDS if (value := getattr(ask, name, None)) is not None}
        structlog.contextvars.bind_contextvars(  # for good: each activity is a task with a context of its own
            workflow_id=info.workflow_id, activity=info.activity_type, attempt=info.attempt, **ids
        )
        return await super().execute_activity(input)


class FreeingRunner(UnsandboxedWorkflowRunner):
    """Frees a workflow's memory as it leaves the cache.

    The SDK's objects refer to each other in circles: a workflow that is left to the garbage collector keeps 28 KB until
    then. Unsandboxed, because the sandbox costs more CPU than the workflow. Replayed histories guard determinism.
    """

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Make an instance that forgets everything once it is evicted."""
        instance = super().create_instance(det)
        activate = instance.activate

        def activate_then_free(act: WorkflowActivation) -> WorkflowActivationCompletion:
            completion = activate(act)  # raises if a task of the workflow is still under way
            if any(job.HasField("remove_from_cache") for job in act.jobs):
                for name, value in list(vars(instance).items()):
                    if not isinstance(value, bool):  # its futures ask such, as they go
                        delattr(instance, name)
            return completion

        vars(instance)["activate"] = activate_then_free
        return instance
