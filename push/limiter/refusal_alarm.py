"""The alarm for pushes that are refused while their route goes on: one line for many, with cause and count."""

import asyncio
from typing import Protocol
from uuid import UUID

QUIET = 600.0  # seconds from one alarm to the next of the same cause
_MAX_REASONS = 20
_MAX = 1000  # pushes of one cause, told apart


class Log(Protocol):
    """Where the alarm goes."""

    def error(self, event: str, **fields: object) -> object:
        """Write a line."""
        ...


class RefusalAlarm:
    """Counts the pushes that were refused by reason, and whose they are, and tells of them."""

    def __init__(self, log: Log, gathered: float) -> None:
        """Make one; `gathered` is how many seconds lie between the first refusal and the alarm."""
        self._log = log
        self._gathered = gathered
        self._refused: dict[str, dict[UUID, int]] = {}  # by reason: the users of push tasks, by digest
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def note(self, reason: str, task_id: UUID, user: int) -> None:
        """Count a push; one that is refused again counts once."""
        if reason not in self._timers:
            if len(self._timers) >= _MAX_REASONS:
                return
            self._wait(reason, self._gathered)
        refused = self._refused.setdefault(reason, {})
        if len(refused) < _MAX:
            refused[task_id] = user

    def drop(self) -> None:
        """Tell nothing of what was counted: the gate was shut for it, aloud."""
        self._refused.clear()

    def _wait(self, reason: str, seconds: float) -> None:
        self._timers[reason] = asyncio.get_running_loop().call_later(seconds, self._tell, reason)

    def _tell(self, reason: str) -> None:
        del self._timers[reason]
        if refused := self._refused.pop(reason, None):
            self._log.error("pushes refused", reason=reason, pushes=len(refused), users=len(set(refused.values())))
            self._wait(reason, QUIET)
