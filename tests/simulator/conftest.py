"""One simulator for this folder, empty before each test."""

import ssl
from collections.abc import AsyncIterator

import httpx
import pytest

from simulator import Simulator
from tests.simulator.raw_http2 import RawHttp2
from tests.simulator.tokens import trusting


@pytest.fixture(scope="session")
async def _running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture
def sim(_running: Simulator) -> Simulator:
    """A simulator without phones, faults or memories."""
    _running.clear()
    return _running


@pytest.fixture
def tls(sim: Simulator) -> ssl.SSLContext:
    """Trust in the simulator's authority, without ALPN."""
    return trusting(sim)


@pytest.fixture
async def raw(sim: Simulator) -> AsyncIterator[RawHttp2]:
    """A bare HTTP/2 connection to APNs production."""
    async with RawHttp2.to(sim, sim.ports.apns) as connection:
        yield connection


@pytest.fixture
async def admin(sim: Simulator, tls: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """The admin API over HTTP."""
    async with httpx.AsyncClient(base_url=sim.url, verify=tls) as client:
        yield client
