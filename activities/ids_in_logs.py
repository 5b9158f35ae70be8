"""What an activity logs bears the ids of what it is about."""

import structlog
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from domain.naming import subject_of

_IDS = ("session_id", "message_id", "task_id")


class IdsInLogs(Interceptor):
    """Binds workflow and attempt, and ids from the workflow's name and the activity's input."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 -- the SDK's name
        """Stand before each activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> object:  # noqa: A002 -- the SDK's name
        info = activity.info()
        ids = subject_of(info.workflow_id or "")
        for ask in input.args:
            ids |= {name: str(value) for name in _IDS if (value := getattr(ask, name, None)) is not None}
        structlog.contextvars.bind_contextvars(  # for good: each activity is a task with a context of its own
            workflow_id=info.workflow_id, activity=info.activity_type, attempt=info.attempt, **ids
        )
        return await super().execute_activity(input)
