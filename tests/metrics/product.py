"""The running product: API and worker as processes of their own, whose way to Temporal can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import httpx

from db.engine import make_engine, make_sessions
from tests.busy import ANSWERED_WITHIN
from tests.killed.wire import Wire, wire
from tests.servers import Part, free_port, part
from tests.stack import Stack, StackPlace, temporal_client


@dataclass(frozen=True)
class Product:
    """What an operator sees of it."""

    stack: Stack
    api: Part
    worker: Part
    api_port: int
    metrics_port: int
    to_temporal: Wire

    async def metrics_of_worker(self) -> str:
        """Scrape the worker."""
        return (await self.stack.http.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text

    async def metrics_of_api(self) -> str:
        """Scrape the API."""
        return (await self.stack.http.get("/metrics")).text


@asynccontextmanager
async def running(place: StackPlace, **settings: str) -> AsyncIterator[Product]:
    """Run it until the block is left."""
    host, port = place.temporal_address.split(":")
    api_port, metrics_port = free_port(), free_port()
    async with wire(partial(asyncio.open_connection, host, int(port))) as way:
        environment = place.environment(
            TEMPORAL_ADDRESS=f"127.0.0.1:{way.port}", API_PORT=str(api_port), METRICS_PORT=str(metrics_port), **settings
        )
        engine, client = make_engine(place.database_url), await temporal_client(place)
        try:
            async with (
                part(environment, "-m", "api") as api,
                part(environment, "worker.py") as worker,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{api_port}", timeout=ANSWERED_WITHIN) as http,
            ):
                await api.answers(f"http://127.0.0.1:{api_port}/readyz")
                await worker.says("worker ready")
                stack = Stack(place, http, make_sessions(engine), client)
                yield Product(stack, api, worker, api_port, metrics_port, way)
        finally:
            await engine.dispose()
