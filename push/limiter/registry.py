"""The gates of all routes in this process."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from domain.push import Provider, Route
from push.gate import Gate
from push.gate_terms import GateReport, Limits, Timings
from push.verdict import heard_last, unknown_refusals

DEFAULT_TIMINGS = Timings()


class Gates:
    """Opens a gate for each route when it is first asked for. Nothing passes before `share` was told."""

    def __init__(
        self,
        limits: Mapping[Provider, Limits],
        timings: Timings = DEFAULT_TIMINGS,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._limits = limits
        self._timings = timings
        self._clock = clock
        self._chance = chance
        self._gates: dict[Route, Gate] = {}
        self._credentials: dict[Route, object] = {}
        self._share: float | None = None

    def at(self, route: Route) -> Gate:
        """Find the gate of a route."""
        gate = self._gates.get(route)
        if gate is None:
            limits = self._limits[route.provider]
            gate = self._gates[route] = Gate(route, limits, self._timings, clock=self._clock, chance=self._chance)
            gate.share(self._share)
        return gate

    def serving(self, route: Route, credentials: object) -> Gate:
        """Find the gate of a route; it starts afresh where its calls are made with other credentials than before."""
        gate = self.at(route)
        if self._credentials.get(route, credentials) is not credentials:
            gate.start_afresh()
        self._credentials[route] = credentials
        return gate

    def serves(self, route: Route, credentials: object) -> bool:
        """Tell whether calls on a route are made with these credentials at present, as far as anybody said."""
        return self._credentials.get(route, credentials) is credentials

    def share(self, share: float | None) -> None:
        """Learn which part of the fleet's rate is this process's; None: not heard by it yet, so nothing may go out."""
        self._share = share
        for gate in self._gates.values():
            gate.share(share)

    def reports(self) -> list[GateReport]:
        """Tell how all gates stand; another thread may ask."""
        return [gate.report() for gate in list(self._gates.values())]

    def report(self) -> dict[str, Any]:
        """Tell how all gates stand, and which refusals no table knows, as JSON."""
        rows = [asdict(report) for report in self.reports()]
        return {
            "gates": [row | {"until": row["until"] and row["until"].isoformat()} for row in rows],
            "unknown_refusals": [
                {"provider": key[0], "status": key[1], "reason": key[2], "count": count}
                | {"last_at": heard_last[key].isoformat()}
                for key, count in unknown_refusals.items()
            ],
        }
