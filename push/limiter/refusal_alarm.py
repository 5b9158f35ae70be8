"""The alarm for pushes that are refused while their route keeps sending: one log line for many."""

import asyncio
from typing import Protocol
from uuid import UUID

QUIET = 600.0  # seconds from one alarm to the next of the same cause
_MAX_REASONS = 20
_MAX = 1000  # pushes of one cause, told apart


class Log(Protocol):
    """Where the alarm is written."""

    def error(self, event: str, **fields: object) -> object:
        """Write a line."""
        ...


class RefusalAlarm:
    """Counts refused pushes and their users by reason, and logs the counts."""

    def __init__(self, log: Log, gathered: float) -> None:
        """Make one; `gathered` is the time from the first refusal to the alarm, in seconds."""
        self._log = log
        self._gathered = gathered
        self._refused: dict[str, dict[UUID, int]] = {}  # by reason: the users of push tasks, by digest
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def note(self, reason: str, task_id: UUID, user: int) -> None:
        """Count a push; further refusals of it do not count."""
        if reason not in self._timers:
            if len(self._timers) >= _MAX_REASONS:
                return
            self._wait(reason, self._gathered)
        refused = self._refused.setdefault(reason, {})
        if len(refused) < _MAX:
            refused[task_id] = user

    def drop(self) -> None:
        """Drop the counts: the breaker has opened, and logs the cause itself."""
        self._refused.clear()

    def _wait(self, reason: str, seconds: float) -> None:
        self._timers[reason] = asyncio.get_running_loop().call_later(seconds, self._log_refused, reason)

    def _log_refused(self, reason: str) -> None:
        del self._timers[reason]
        if refused := self._refused.pop(reason, None):
            self._log.error("pushes refused", reason=reason, pushes=len(refused), users=len(set(refused.values())))
            self._wait(reason, QUIET)
