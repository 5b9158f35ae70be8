"""A stack whose API is a process of its own that traces; workers are up to the tests."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from db.engine import make_engine, make_sessions
from simulator import Simulator
from tests.busy import ANSWERED_WITHIN
from tests.servers import Part, free_port, part
from tests.stack import Stack, StackPlace, temporal_client
from tests.telemetry.collector import Collector, collecting


@dataclass(frozen=True)
class Traced:
    """What tests of traces talk to."""

    stack: Stack
    api: Part
    collector: Collector

    def environment(self, **more: str) -> dict[str, str]:
        """Give the settings of one more process."""
        ports = {"API_PORT": str(free_port()), "METRICS_PORT": str(free_port())}
        return self.stack.place.environment(**ports, **self.collector.environment, **more)


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the spans go."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="session")
async def traced(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator, collector: Collector
) -> AsyncIterator[Traced]:
    """The stack, without a worker."""
    place = StackPlace(await new_database("traced"), temporal, "traced", simulator)
    url = f"http://127.0.0.1:{(port := free_port())}"
    engine = make_engine(place.database_url)
    async with (
        part(place.environment(API_PORT=str(port), ARM_WINDOW="0", **collector.environment), "-m", "api") as api,
        httpx.AsyncClient(base_url=url, timeout=ANSWERED_WITHIN) as http,
    ):
        await api.answers(f"{url}/readyz")
        stack = Stack(place, http, make_sessions(engine), await temporal_client(place))
        yield Traced(stack, api, collector)
    await engine.dispose()
