"""What a workflow history may say about a failed activity: the error's type, never its text."""

import structlog
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

log = structlog.get_logger()


class NamelessFailures(Interceptor):
    """Replaces unexpected exceptions, whose text may quote a token or a row, before Temporal stores them."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 -- the SDK's name
        """Stand before each activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> object:  # noqa: A002 -- the SDK's name
        try:
            return await super().execute_activity(input)
        except FailureError:
            raise
        except Exception as error:
            name = type(error).__name__
            log.warning("activity failed", activity=input.fn.__name__, exc_info=error)
            failure = ApplicationError("unexpected error", type=name)
        raise failure  # outside of the handler, so that the original is no cause of it
