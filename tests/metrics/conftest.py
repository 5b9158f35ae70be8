"""The product, running as it does in production and watched by a Prometheus server."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulator import Simulator
from tests.metrics.life import Life, live, live_through_trouble
from tests.metrics.product import Product, running
from tests.metrics.prometheus import Prometheus, scraping
from tests.stack import StackPlace


@dataclass(frozen=True)
class Watched:
    """A product after an ordinary day, the server that scraped it meanwhile, and the authority that it trusts."""

    product: Product
    prometheus: Prometheus
    life: Life
    ca_file: Path


@pytest.fixture(scope="session")
async def watched(
    new_database: Callable[[str], Awaitable[str]],
    temporal: str,
    simulator: Simulator,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Watched]:
    """Run all of it, and let people use it."""
    directory = tmp_path_factory.mktemp("watched")
    ca_file = Path(shutil.copy(simulator.environment["FCM_CA_FILE"], directory / "ca.pem"))
    place = StackPlace(await new_database("metrics"), temporal, "metrics", simulator)
    async with running(place, FCM_CA_FILE=str(ca_file), MAX_INSTALLATIONS_PER_USER="0") as product:
        targets = {"fastbell-api": product.api_port, "fastbell-worker": product.metrics_port}
        async with scraping(directory, targets) as prometheus:
            yield Watched(product, prometheus, await live(product.stack, simulator), ca_file)


@dataclass(frozen=True)
class Troubled:
    """A product after a day with every kind of trouble."""

    product: Product
    life: Life


@pytest.fixture(scope="module")
async def troubled(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Troubled]:
    """Run a product that nobody else uses, and let people use it while things go wrong."""
    place = StackPlace(await new_database("numbers"), temporal, "numbers", simulator)
    async with running(place, BRAKE_TOKEN_ERRORS="3") as product:
        yield Troubled(product, await live_through_trouble(product.stack, simulator))


@pytest.fixture
def simulator_ca(simulator: Simulator) -> Path:
    """A file with a certificate in it."""
    return Path(simulator.environment["APNS_CA_FILE"])
