"""The doctor's look at PostgreSQL: reachable, migrated, and what time it is there."""

import asyncio
import time
from collections.abc import Sequence

from commands.database import opened, told_in_one_sentence
from commands.doctor_clock import clock_line
from commands.doctor_lines import Area, Line
from config import ConfigError
from db.engine import Pooling, pooling, present_instant
from db.migrate import newest_revision, present_revision
from db.workers import LATELY, live

AREA = Area("database")

_MIXED = "DATABASE_URL leads through a pooler that gives each transaction another connection (transaction mode)"
_UNMIXED = (
    "Let it pool by session (PgBouncer: pool_mode = session), or name PostgreSQL itself; docs/deployment.md, Poolers."
)


async def look_at_database(url: str) -> Sequence[Line]:
    """Reach it, and compare its schema and its clock with ours."""
    try:
        with told_in_one_sentence():
            between = await pooling(url)
        if between is Pooling.TRANSACTION:
            return [AREA.failure(_MIXED, _UNMIXED)]
        async with opened(url) as sessions, sessions() as db:
            before = time.time()
            there = await present_instant(db)
            now = (before + time.time()) / 2
            present, newest = await present_revision(db), await asyncio.to_thread(newest_revision)
            workers = [_workers(len(await live(db)))] if present == newest else []
    except ConfigError as error:
        return [
            AREA.failure(str(error), "See that PostgreSQL runs, and that DATABASE_URL names it, its user and password.")
        ]
    return [
        AREA.ok(f"PostgreSQL answers{', through a pooler in session mode' * (between is Pooling.SESSION)}"),
        _schema(present, newest),
        clock_line(AREA, "PostgreSQL", there.timestamp(), now),
        *workers,
    ]


def _workers(alive: int) -> Line:
    """Say how many workers live; Temporal takes one that stopped for alive a while longer."""
    within = f"the last {LATELY.total_seconds():g} s"
    if not alive:
        return AREA.failure(f"no worker was alive in {within}", "Start workers (`worker.py`), and read their logs.")
    return AREA.ok(f"{alive} worker{'s' * (alive > 1)} alive in {within}")


def _schema(present: str | None, newest: str) -> Line:
    if present == newest:
        return AREA.ok(f"migrated to {newest}, the newest")
    found = "was never migrated" if present is None else f"is at migration {present}, not at {newest}"
    to_do = "Run `cli.py migrate`, then restart workers and API; a database that is ahead needs the newer release."
    return AREA.failure(f"the database {found}", to_do)
