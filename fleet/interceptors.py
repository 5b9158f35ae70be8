"""What a workflow history may say about a failed activity: the error's type, never its text."""

import time
from datetime import timedelta

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from domain.back_off import in_time

_FIRST, _LONGEST = timedelta(seconds=1), timedelta(seconds=30)  # as Temporal waits by `workflows/fan_out.py`

log = structlog.get_logger()


class NamelessFailures(Interceptor):
    """Replaces unexpected exceptions, whose text may quote a token or a row, before Temporal stores them."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 -- the SDK's name
        """Stand before each activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
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
        raise failure  # outside of the handler, so that the original is no cause of it


def _next_try(began: float) -> timedelta | None:
    """Have an activity tried once more before Temporal gives it up; None where it may wait as it is used to."""
    info = activity.info()
    if info.is_local or info.schedule_to_close_timeout is None:
        return None
    gone = info.started_time - info.scheduled_time + timedelta(seconds=time.monotonic() - began)
    usual = min(_LONGEST, _FIRST * 2 ** min(info.attempt - 1, 16))
    delay = in_time(usual, info.schedule_to_close_timeout - gone)
    return None if delay == usual else delay
