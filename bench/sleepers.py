"""`python -m bench.sleepers`: what sleeping fasts cost in the worker's memory and the databases' size."""

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from bench.load import start_in_batches
from bench.progress import Progress, phase
from bench.report import machine
from bench.stack import Stack, running
from bench.usage import Usage
from db.engine import make_engine, make_sessions
from dispatch.client import data_converter
from dispatch.relay import Relay
from fleet.interceptors import FreeingRunner
from workflows.fasting_reminder import FastingReminder

_FIRST = 2_000  # sleepers, from which on memory shall be flat
_STEPS = 10
_PAUSE = 35.0  # seconds after the last fast of a step, in which the worker collects garbage
_PATIENCE = 0.1  # seconds for each fast of a step
_TIMEOUT = 600.0  # seconds for a step, at least
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory and disk with this many sleepers; all in megabytes."""

    sleepers: int
    worker: float
    temporal: float
    api: float
    postgres_size: float
    temporal_size: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Let fasts sleep, and print what they cost."""
    parser = argparse.ArgumentParser(prog="python -m bench.sleepers", description=__doc__)
    parser.add_argument("--sessions", type=int, default=20_000, metavar="N", help="sleeping fasts (20000)")
    parser.add_argument(
        "--at", type=int, nargs="+", metavar="N", help="look with so many sleepers, besides the last (every tenth)"
    )
    parser.add_argument(
        "--evictions", type=int, default=0, metavar="N", help="workflows that come and go at the end (0)"
    )
    options = parser.parse_args(arguments)
    try:
        footprints, evicted = asyncio.run(_measured(options.sessions, options.at, options.evictions))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    print(f"{options.sessions} sleeping fasts; {machine()}\n")
    print(_report(footprints))
    for count, memory in evicted:
        print(f"a process through which {count} of them went has {memory:.0f} MB")
    return 0


async def _measured(
    sessions: int, at: Sequence[int] | None, evictions: int
) -> tuple[list[Footprint], list[tuple[int, float]]]:
    async with running(arm_window=60.0) as stack:
        footprints = [await _footprint(stack, 0)]
        step = max(-(-sessions // _STEPS), 1)
        between = range(step, sessions, step) if at is None else at
        marks = sorted({min(_FIRST, sessions), *(each for each in between if 0 < each < sessions), sessions})
        for before, mark in pairwise([0, *marks]):
            with phase(f"{mark} fasts", mark - before) as progress:
                await start_in_batches(stack, mark - before, progress)
                await _all_sleep(stack, mark, max(_PATIENCE * (mark - before), _TIMEOUT))
                await asyncio.sleep(_PAUSE)
            footprints.append(await _footprint(stack, mark))
            print(_line(footprints[-1]), flush=True)  # a run that ends early has measured something, too
        if not evictions:
            return footprints, []
        with phase("workflows that come and go", evictions) as progress:
            return footprints, await _come_and_go(stack, evictions, progress)


async def _come_and_go(stack: Stack, count: int, progress: Progress) -> list[tuple[int, float]]:
    """Have one sleeping workflow put into memory and evicted so often, in this process and without a server.

    Gives this process' memory in megabytes after each tenth. Its garbage collector is off, so nothing is made good.
    """
    async for one in stack.temporal.list_workflows("WorkflowType = 'FastingReminder'", limit=1):
        asleep = await stack.temporal.get_workflow_handle(one.id).fetch_history()
    replayer = Replayer(workflows=[FastingReminder], workflow_runner=FreeingRunner(), data_converter=data_converter)

    async def histories() -> AsyncIterator[WorkflowHistory]:
        for _ in range(count):
            yield asleep

    gc.disable()
    evicted: list[tuple[int, float]] = []
    async with replayer.workflow_replay_iterator(histories()) as replays:
        number = 0
        async for _ in replays:
            number += 1
            progress.show(number)
            if number % max(count // 10, 1) == 0:
                evicted.append((number, psutil.Process().memory_info().rss / _MEGABYTE))
    gc.enable()
    return evicted


async def _all_sleep(stack: Stack, count: int, patience: float) -> None:
    """Wait until so many workflows sleep: started, their first task done.

    This process tells Temporal of them, too: the worker does that without haste, at 20 a second.
    """
    deadline = time.monotonic() + patience
    engine = make_engine(stack.database_url, pool_size=4)
    relay = Relay(make_sessions(engine), stack.temporal, arm_window=60.0)
    while time.monotonic() < deadline:
        if await relay.sweep() or await stack.ask_database("SELECT count(*) FROM outbox"):
            continue
        if (await stack.temporal.count_workflows()).count >= count:
            await engine.dispose()
            return
        await asyncio.sleep(0.5)
    raise SystemExit(f"Not all of {count} fasts reached Temporal.")


async def _footprint(stack: Stack, sleepers: int) -> Footprint:
    memory = Usage(stack.pids).look().memory
    size = await stack.ask_database("SELECT pg_database_size(current_database())")
    return Footprint(
        sleepers,
        worker=memory["worker"],
        temporal=memory["temporal"],
        api=memory["api"],
        postgres_size=size / _MEGABYTE,
        temporal_size=_size(stack.directory) / _MEGABYTE,
    )


def _size(directory: Path) -> int:
    """Add up the server's database file and its write-ahead log."""
    return sum(file.stat().st_size for file in directory.glob("temporal.db*"))


def _report(footprints: Sequence[Footprint]) -> str:
    lines = [
        f"{'':>10}{'memory in MB':>33}{'size in MB':>26}",
        f"{'sleepers':>10}{'worker':>11}{'Temporal':>11}{'API':>11}{'PostgreSQL':>15}{'Temporal':>11}",
    ]
    lines += map(_line, footprints)
    first, last = footprints[0], footprints[-1]
    grown = (last.postgres_size - first.postgres_size + last.temporal_size - first.temporal_size) * 1024
    lines.append(f"A sleeping fast takes {grown / max(last.sleepers, 1):.1f} KB on disk, both databases together.")
    return "\n".join(lines)


def _line(each: Footprint) -> str:
    return (
        f"{each.sleepers:>10}{each.worker:>11.0f}{each.temporal:>11.0f}{each.api:>11.0f}"
        f"{each.postgres_size:>15.0f}{each.temporal_size:>11.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())
