"""What commands about pushes share: the database they ask, and who asks."""

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from commands.database import database_url, opened
from db.engine import Sessions

T = TypeVar("T")


def asked(ask: Callable[[Sessions], Awaitable[T]]) -> T:
    """Ask the database; raises ConfigError where it cannot be used."""
    url = database_url(os.environ)

    async def answer() -> T:
        async with opened(url) as sessions:
            return await ask(sessions)

    return asyncio.run(answer())


def actor() -> str:
    """Name who sits at the command line."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a name
        return f"cli:{os.getuid()}"
