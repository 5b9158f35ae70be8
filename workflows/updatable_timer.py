"""A durable sleep whose end can be moved while it lasts, after `updatable_timer` of Temporal's samples-python."""

from collections.abc import Callable
from datetime import datetime

from temporalio import workflow

from workflows.status import clock


async def sleep_until(wake_at: datetime | None, is_updated: Callable[[], bool]) -> None:
    """Sleep until an instant (None: without end), or until `is_updated` is true: then the caller computes a new one."""
    if wake_at is None:
        await workflow.wait_condition(is_updated)
        return
    try:
        await workflow.wait_condition(
            is_updated, timeout=wake_at - workflow.now(), timeout_summary=f"until {clock(wake_at)}"
        )
    except TimeoutError:
        return
