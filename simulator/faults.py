"""The faults in force: whom they hit, and how often."""

import random
import time
from collections.abc import Callable, Iterator

from simulator.exchange import Environment, Provider
from simulator.fault_kinds import FAULTS, Fault, OauthDown, PushFault
from simulator.wire import WireRequest


class ActiveFault:
    """A fault in force, and how often it struck."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.id = f"fault-{number}"
        self.fault = fault
        self.seen = 0
        self.struck = 0
        self._random = random.Random(fault.seed)  # noqa: S311 (repeatable on purpose)
        self._from = time.monotonic() + fault.after_seconds
        self._until = None if fault.for_seconds is None else self._from + fault.for_seconds

    @property
    def is_over(self) -> bool:
        """Spent or timed out."""
        is_spent = self.fault.count is not None and self.struck >= self.fault.count
        return is_spent or (self._until is not None and time.monotonic() >= self._until)

    @property
    def is_in_force(self) -> bool:
        """Begun and not over."""
        return time.monotonic() >= self._from and not self.is_over

    def concerns(self, provider: Provider, environment: Environment) -> bool:
        """Whether it is about this provider."""
        return self.fault.provider is provider and self.fault.environment in {None, environment}

    def strikes(self, request: WireRequest) -> bool:
        """Whether it hits this push; counts it if so."""
        fault = self.fault
        if not self.concerns(request.provider, request.environment):
            return False
        if fault.token not in {None, request.token} or fault.app not in {None, request.app}:
            return False
        return self.happens()

    def happens(self) -> bool:
        """Whether it is the turn of something that it concerns; counts it if so."""
        fault = self.fault
        if not self.is_in_force:
            return False
        self.seen += 1
        if self.seen <= fault.skip or (fault.share < 1 and self._random.random() >= fault.share):
            return False
        self.struck += 1
        return True


class Faults:
    """The faults in force, oldest first; the first that strikes decides."""

    def __init__(self) -> None:
        self._faults: list[ActiveFault] = []
        self._count = 0
        self.on_change: Callable[[ActiveFault | None], None] = lambda _: None

    def __iter__(self) -> Iterator[ActiveFault]:
        return iter(list(self._faults))

    def add(self, **fields: object) -> ActiveFault:
        """Put a fault in force; the fields are those of `POST /faults`. Raises pydantic.ValidationError."""
        fault = FAULTS.validate_python(fields)
        self._count += 1
        active = ActiveFault(self._count, fault)
        self._faults.append(active)
        self.on_change(active)
        return active

    def remove(self, fault_id: str) -> bool:
        """End one fault; False when there is none."""
        kept = [active for active in self._faults if active.id != fault_id]
        is_found = len(kept) < len(self._faults)
        self._faults = kept
        self.on_change(None)
        return is_found

    def clear(self) -> None:
        """End every fault."""
        self._faults.clear()
        self.on_change(None)

    def striking(self, request: WireRequest) -> PushFault | None:
        """Find what goes wrong with this push; None for nothing."""
        for active in self._faults:
            if isinstance(active.fault, PushFault) and active.strikes(request):
                return active.fault
        return None

    def oauth(self) -> OauthDown | None:
        """Find what goes wrong with this access token request; None for nothing."""
        for active in self._faults:
            if isinstance(active.fault, OauthDown) and active.happens():
                return active.fault
        return None
