"""Databases for tests of the schema."""

import secrets
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from db.engine import async_url


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[AsyncEngine]:
    """A database with nothing in it."""
    name = f"empty_{secrets.token_hex(4)}"
    server = create_async_engine(async_url(postgres), isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await server.dispose()
    engine = create_async_engine(async_url(postgres).set(database=name))
    yield engine
    await engine.dispose()
