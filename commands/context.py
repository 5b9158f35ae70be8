"""What commands share: the settings of a local run, the database, the operator, numbers, and the output."""

import argparse
import asyncio
import getpass
import os
import shlex
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import asyncpg
from pydantic import TypeAdapter
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import UNREACHABLE, ReadOnly, Sessions, make_engine, make_sessions
from db.migrate import migrate, newest_revision
from db.support_actions import Actor
from domain.naming import VERSION
from settings.environment import ConfigError, service_settings

_INVISIBLE = "\u200c\u200d\u200e\u200f"  # part of words, emoji and right-to-left texts; they steer no terminal
ROOT = Path(__file__).parent.parent


def release() -> str:
    """Name the release of this code, and the migration that it needs."""
    return f"fastbell {VERSION} (migration {newest_revision()})"


def run_directory(environ: Mapping[str, str]) -> Path:
    """Name the directory: RUN_DIR, or `.run` beside the code."""
    named = environ.get("RUN_DIR")
    return Path(named).expanduser().resolve() if named else ROOT / ".run"


def read_settings(run_dir: Path) -> dict[str, str]:
    """Read `run.env`; empty if there is none."""
    try:
        lines = shlex.split((run_dir / "run.env").read_text())
    except (OSError, ValueError):  # none, or not written by us
        return {}
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs}


_REFUSED = ("28000", "28P01", "3D000")  # SQLSTATEs: user, password, database
_NO_SUCH_TABLE = ("42P01", "42703")  # SQLSTATEs: undefined table, undefined column


def database_url(environ: Mapping[str, str]) -> str:
    """Find the database: DATABASE_URL, or that of the run in RUN_DIR; raises ConfigError."""
    run_dir = run_directory(environ)
    url = environ.get("DATABASE_URL") or read_settings(run_dir).get("DATABASE_URL")
    if not url:
        raise ConfigError(f"DATABASE_URL is not set, and there is no local run in {run_dir}. `make run` starts one.")
    return service_settings({"DATABASE_URL": url}).database_url.get_secret_value()


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Sessions]:
    """Open a migrated database; raises ConfigError if it cannot be used."""
    with as_config_errors():
        engine = make_engine(url, pool_size=2)
        try:
            yield make_sessions(engine)
        finally:
            await engine.dispose()


async def migrate_named(url: str) -> None:
    """Migrate a database to the newest migration; raises ConfigError if it cannot be used."""
    with as_config_errors():
        await migrate(url)


@contextmanager
def as_config_errors() -> Iterator[None]:
    """Turn errors of a database that cannot be used into a ConfigError of one sentence."""
    try:
        yield
    except ReadOnly:
        raise ConfigError("DATABASE_URL: PostgreSQL accepts no writes. It is a standby, or read-only.") from None
    except UNREACHABLE as error:
        raise ConfigError(f"DATABASE_URL: PostgreSQL cannot be reached ({type(error).__name__}).") from None
    except (DBAPIError, asyncpg.PostgresError) as error:
        state = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
        if state in _REFUSED:
            raise ConfigError("DATABASE_URL: PostgreSQL does not know this user, password or database.") from None
        if state not in _NO_SUCH_TABLE:
            raise
        raise ConfigError("DATABASE_URL: this database is not up to date. Run `cli.py migrate`.") from None


T = TypeVar("T")
_Word = TypeVar("_Word", bound=StrEnum)


def query(ask: Callable[[Sessions], Awaitable[T]]) -> T:
    """Run a query on the database; raises ConfigError if it cannot be used."""
    url = database_url(os.environ)

    async def answer() -> T:
        async with open_database(url) as sessions:
            return await ask(sessions)

    return asyncio.run(answer())


def read(ask: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run a query in a session of its own; raises ConfigError."""

    async def answer(sessions: Sessions) -> T:
        async with sessions() as db:
            return await ask(db)

    return query(answer)


def write(change: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run a change in a transaction of its own; raises ConfigError."""

    async def answer(sessions: Sessions) -> T:
        async with sessions.begin() as db:
            return await change(db)

    return query(answer)


def actor() -> Actor:
    """Name the operator at the command line, who is none of the app's people."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        name = str(os.getuid())
    return Actor(f"cli:{name}", is_person=False)


def up_to(most: int, what: str = "a number") -> Callable[[str], int]:
    """Make the type of an argument that is a number from 1 to `most`."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= most or len(text) > 9:
            raise argparse.ArgumentTypeError(f"must be {what} from 1 to {most}")
        return int(text)

    return number


def one_of(kind: type[_Word]) -> Callable[[str], _Word]:
    """Make the type of an argument that is one word of a list."""

    def word(text: str) -> _Word:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(kind)}") from None

    return word


def print_json(value: object) -> None:
    """Print as JSON, with the API's field names."""
    print(TypeAdapter(type(value)).dump_json(value, indent=2).decode())


def print_list(
    arguments: argparse.Namespace, found: Sequence[T], titles: Sequence[str], line: Callable[[T], Sequence[object]]
) -> int:
    """Print a list as JSON where `--json` is given, else as a table; gives the exit status."""
    if arguments.json:
        print_json(found)
    else:
        print_table(titles, [line(each) for each in found])
    return 0


def print_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns."""
    lines = [list(titles), *([cell(each) for each in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: object) -> str:
    """Write one value. Control characters, which could steer the terminal, are replaced."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    return "".join(_shown(each) for each in str(value))


def _shown(character: str) -> str:
    if character.isprintable() or character in _INVISIBLE:
        return character
    return " " if unicodedata.category(character) == "Zs" else "?"
