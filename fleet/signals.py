"""Reads the fleet's signals from the database: one worker does, the others stand by."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from db.engine import Sessions, connect_alone, look_alone
from db.views import signals
from domain.signals import Signals
from push.registry import SenderRegistry
from telemetry.fleet_gauges import families

EVERY = 15.0  # seconds
_SOON = 1.0  # seconds, until the first sweep is over
_TIMEOUT = 10.0  # seconds for one reading
_LEADS = "SELECT pg_try_advisory_lock(hashtextextended('signals', 0))"

log = structlog.get_logger()


class FleetSignals(Collector):
    """Holds what was read last, for scrapes; nothing while another worker reads.

    The reader holds a lock of PostgreSQL on a connection of its own, so the lock ends with the process.
    """

    def __init__(self, sessions: Sessions, database_url: str, apps: SenderRegistry, *, every: float = EVERY) -> None:
        self._sessions = sessions
        self._database_url = database_url
        self.apps = apps
        self._every = every
        self._connection: Any = None
        self._signals: Signals | None = None

    async def read_forever(self) -> None:
        """Read, or stand by, until cancelled."""
        try:
            while True:
                try:
                    async with asyncio.timeout(_TIMEOUT):
                        self._signals = await self._read()
                except Exception as error:  # noqa: BLE001 -- whatever ails the database
                    log.warning("reading the signals failed", error=type(error).__name__)
                    self._give_up()
                is_whole = self._signals is None or self._signals.swept_at is not None
                await asyncio.sleep(self._every if is_whole else min(self._every, _SOON))
        finally:
            self._give_up()

    def collect(self) -> Iterator[Metric]:
        """Give the gauges, if this worker is the reader."""
        signals_read = self._signals
        if signals_read is not None:
            yield from families(signals_read, self.apps.keys)

    async def _read(self) -> Signals | None:
        if self._connection is None:
            self._connection = await connect_alone(self._database_url, "fastbell-signals")
            self._connection.add_termination_listener(self._lost)
        if self._signals is None and not await self._connection.fetchval(_LEADS):
            return None
        if self._signals is not None:
            await look_alone(self._connection)  # without its connection it has lost the lock
        async with self._sessions() as db:
            read = await signals.present(db)
        return None if self._connection.is_closed() else read  # lost meanwhile: another worker may read

    def _lost(self, connection: object) -> None:
        """Give nothing from now on: another worker may read at once."""
        if connection is self._connection:
            self._signals = None

    def _give_up(self) -> None:
        self._signals = None
        if self._connection is not None:
            with suppress(Exception):
                self._connection.terminate()
            self._connection = None
