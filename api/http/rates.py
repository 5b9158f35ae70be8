"""How many requests of each caller run at a time; one more waits for a while, and never for somebody else's."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta

from api.auth import Caller
from domain.problems import LimitReached

WAIT = 2.0  # seconds that a request may wait for another of the same caller to end
MOST_WAITING = 64  # of one caller; beyond this a request is refused at once
_RETRY_AFTER = timedelta(seconds=1)


@dataclass(slots=True)
class _Places:
    """The places of one caller."""

    free: asyncio.Semaphore
    wanted: int = 0  # by requests that run, and by those that wait


@dataclass(slots=True)
class Permit:
    """Leave to run; given back once, however often it is released."""

    _held: ExitStack = field(default_factory=ExitStack)

    def add(self, release: Callable[[], None]) -> None:
        """Hold one more place."""
        self._held.callback(release)

    def release(self) -> None:
        """Give the places back."""
        self._held.close()


class RunningRequests:
    """Counts the requests under way in this process: of each user, of each service, of each user a service acts for."""

    def __init__(self, of_users: int | None, of_services: int | None, wait: float = WAIT) -> None:
        self._of_users, self._of_services = of_users, of_services  # None: no limit
        self._wait = wait  # seconds
        self._places: dict[tuple[str, str], _Places] = {}

    async def enter(self, caller: Caller, acts_for: str | None = None) -> Permit:
        """Let a request run; `acts_for` is the user whom a service names. Raises LimitReached."""
        permit = Permit()
        try:
            if "service" not in caller.scopes:
                await self._enter(permit, ("user", caller.user_id), self._of_users)
            else:
                if acts_for is not None:  # first: who waits for this user must not take a place from the others
                    await self._enter(permit, ("user acted for", acts_for), self._of_users)
                await self._enter(permit, ("service", caller.user_id), self._of_services)
        except BaseException:
            permit.release()
            raise
        return permit

    async def _enter(self, permit: Permit, who: tuple[str, str], most: int | None) -> None:
        if most is None:
            return
        places = self._places.setdefault(who, _Places(asyncio.Semaphore(most)))
        if places.wanted >= most + MOST_WAITING:
            raise _too_many(most)
        places.wanted += 1
        try:
            async with asyncio.timeout(self._wait):
                await places.free.acquire()
        except BaseException as error:
            self._forget(who, places)
            if isinstance(error, TimeoutError):
                raise _too_many(most) from None
            raise
        permit.add(lambda: self._leave(who, places))

    def _leave(self, who: tuple[str, str], places: _Places) -> None:
        places.free.release()
        self._forget(who, places)

    def _forget(self, who: tuple[str, str], places: _Places) -> None:
        places.wanted -= 1
        if not places.wanted:
            del self._places[who]


def _too_many(most: int) -> LimitReached:
    detail = f"At most {most} requests of one caller run at a time. Try again when others are answered."
    return LimitReached(detail, _RETRY_AFTER, code="too-many-concurrent-requests")
