"""Log lines that a test asks for, and not those of servers beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from structlog import DropEvent
from structlog.testing import capture_logs
from structlog.typing import EventDict

_WHOSE: ContextVar[object] = ContextVar("_WHOSE")


@contextmanager
def own_logs() -> Iterator[list[EventDict]]:
    """Capture the lines of this task, and of tasks and timers that it starts meanwhile.

    Servers of other tests run in the same process, and timers that those have left.
    """
    mine = object()

    def is_mine(_logger: object, _method: str, entry: EventDict) -> EventDict:
        if _WHOSE.get(None) is not mine:
            raise DropEvent
        return entry

    before = _WHOSE.set(mine)
    try:
        with capture_logs(processors=[is_mine]) as logs:
            yield logs
    finally:
        _WHOSE.reset(before)
