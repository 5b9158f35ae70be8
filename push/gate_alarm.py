"""The alarm for pushes that are refused while their route goes on: one line for many, with cause and count."""

import asyncio
from collections import Counter
from typing import Protocol

GATHERED = 1.0  # seconds from the first refusal to the alarm
QUIET = 600.0  # seconds from one alarm to the next of the same cause
_REASONS_AT_MOST = 20
_USERS_AT_MOST = 1000  # told apart


class Log(Protocol):
    """Where the alarm goes."""

    def error(self, event: str, **fields: object) -> object:
        """Write a line."""
        ...


class RefusalAlarm:
    """Counts refusals by reason, and tells of them."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._pushes: Counter[str] = Counter()
        self._users: dict[str, set[str]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def note(self, reason: str, user_id: str) -> None:
        """Count a refusal."""
        if reason not in self._timers:
            if len(self._timers) >= _REASONS_AT_MOST:
                return
            self._timers[reason] = asyncio.get_running_loop().call_later(GATHERED, self._tell, reason)
        self._pushes[reason] += 1
        users = self._users.setdefault(reason, set())
        if len(users) < _USERS_AT_MOST:
            users.add(user_id)

    def _tell(self, reason: str) -> None:
        pushes, users = self._pushes.pop(reason, 0), self._users.pop(reason, set())
        del self._timers[reason]
        if pushes:
            self._log.error("pushes refused", reason=reason, pushes=pushes, users=len(users))
            self._timers[reason] = asyncio.get_running_loop().call_later(QUIET, self._tell, reason)
