"""A failover as a database's users see it: for a while their server answers, and takes no writes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from db.engine import async_url

_ENDS_WITHIN = 20_000  # milliseconds that a server process may take to end


@dataclass(frozen=True)
class Failover:
    """One database, and a connection to another one of its server."""

    database_url: str
    _server: AsyncConnection

    @classmethod
    @asynccontextmanager
    async def of(cls, server_url: str, database_url: str) -> AsyncIterator[Self]:
        """Prepare it."""
        engine = create_async_engine(async_url(server_url), isolation_level="AUTOCOMMIT")
        try:
            async with engine.connect() as server:
                failover = cls(database_url, server)
                try:
                    yield failover
                finally:
                    await failover.end()
        finally:
            await engine.dispose()

    async def begin(self) -> None:
        """Take no more writes, and close every connection; each is closed when this returns."""
        await self._server.execute(text(f"ALTER DATABASE {self._name} SET default_transaction_read_only = on"))
        end = "SELECT pg_terminate_backend(pid, :within) FROM pg_stat_activity WHERE datname = :name"
        await self._server.execute(text(end), {"name": self._name, "within": _ENDS_WITHIN})

    async def end(self) -> None:
        """Take writes again; connections made in the meantime still cannot."""
        await self._server.execute(text(f"ALTER DATABASE {self._name} RESET default_transaction_read_only"))

    @property
    def _name(self) -> str:
        return str(async_url(self.database_url).database)
