"""The admin API's HTTP server, inside the simulator's own event loop."""

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING

import uvicorn

from simulator.admin import admin_app

if TYPE_CHECKING:
    from simulator.running import Simulator


class AdminServer:
    """Serves on a socket that is bound already."""

    def __init__(self, simulator: "Simulator", bound: socket.socket) -> None:
        self._bound = bound
        self._simulator = simulator
        self._closing: asyncio.Event | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start to serve."""
        self._closing = asyncio.Event()
        app = admin_app(self._simulator, self._closing)
        self._server = _Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=2
            )
        )
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._bound]))
        await self._server.ready.wait()

    async def close(self) -> None:
        """Answer what is in hand, then stop."""
        if self._server is None or self._serving is None or self._closing is None:
            self._bound.close()
            return
        self._closing.set()
        self._server.should_exit = True
        await self._serving
        self._bound.close()


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the simulator, and says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()
