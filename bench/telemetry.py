"""`python -m bench.telemetry`: what metrics and traces cost, with and without them in one run.

The same processes send wave after wave of reminders, each wave due at one instant and not armed before (ARM_WINDOW=0),
so that throughput is what the machine can do. Between waves metrics and traces are switched off and on. Each round has
one wave of each variant, in the reverse order of the round before, and ratios are taken within a round.
"""

import argparse
import asyncio
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.arrivals import read_all
from bench.load import people, sign_in, start_fasts
from bench.percentiles import percentile
from bench.progress import phase
from bench.report import machine
from bench.stack import Launch, Stack, running
from bench.usage import watching

GOAL = 0.95  # of the throughput without metrics and traces

_WITHOUT = "neither"
_VARIANTS = {_WITHOUT: signal.SIGHUP, "metrics": signal.SIGUSR2, "metrics and all traces": signal.SIGUSR1}
_MEASURED = ("worker", "api")
_TIMEOUT = 180.0  # seconds after the due instant
_TAIL = 4.0  # seconds; the last workflows end


@dataclass(frozen=True, slots=True)
class Wave:
    """The results of one wave."""

    rate: float  # reminders per second, from the due instant until the last was received
    cpu: float  # milliseconds of worker and API per reminder, from the first call until all has ended
    is_sound: bool  # each came once, not early
    last: int  # the number of its last request


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the status is 1 if a reminder was lost, doubled or early, or the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.telemetry", description=__doc__)
    parser.add_argument("--sessions", type=int, default=400, metavar="N", help="reminders in each wave (400)")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="how many rounds (8)")
    options = parser.parse_args(arguments)
    try:
        rounds = asyncio.run(_rounds(options.sessions, options.rounds))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    print(f"{options.sessions} reminders in each wave, not armed; {machine()}")
    print(f"median of {options.rounds} rounds (quartiles)\n")
    print(f"{'':<24} {'per second':>10} {'ratio':>22} {'CPU, ms':>9} {'ratio':>22}")
    for name in _VARIANTS:
        rate, cpu = (statistics.median(getattr(each[name], of) for each in rounds) for of in ("rate", "cpu"))
        rates, cpus = _quartiles(rounds, name, "rate"), _quartiles(rounds, name, "cpu")
        print(f"{name:<24} {rate:>10.1f} {rates} {cpu:>9.1f} {cpus}")
    reached = min(statistics.median(_ratios(rounds, name, "rate")) for name in _VARIANTS)
    print(f"\ngoal: a ratio per second of at least {GOAL}: {'reached' if reached >= GOAL else 'missed'}")
    return 0 if reached >= GOAL and all(wave.is_sound for each in rounds for wave in each.values()) else 1


def _ratios(rounds: Sequence[Mapping[str, Wave]], name: str, of: str) -> list[float]:
    return sorted(getattr(each[name], of) / getattr(each[_WITHOUT], of) for each in rounds)


def _quartiles(rounds: Sequence[Mapping[str, Wave]], name: str, of: str) -> str:
    ratios = _ratios(rounds, name, of)
    return f"{statistics.median(ratios):>8.3f} ({percentile(ratios, 0.25):.3f}-{percentile(ratios, 0.75):.3f})"


async def _rounds(sessions: int, count: int) -> list[Mapping[str, Wave]]:
    async with _collector() as endpoint:
        launch = Launch({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, ("-m", "bench.launched"))
        async with running(0.0, launch) as stack:
            rounds, last = list[Mapping[str, Wave]](), 0
            for number in range(-1, count):  # the first one warms up
                waves = {}
                for name in list(_VARIANTS)[:: -1 if number % 2 else 1]:
                    print(f"Round {number + 1} of {count}: {name}", file=sys.stderr)
                    for part in _MEASURED:
                        stack.kill(part, _VARIANTS[name])
                    waves[name] = await _wave(stack, sessions, last)
                    last = waves[name].last
                rounds.append(waves)
            return rounds[1:]


async def _wave(stack: Stack, count: int, last: int) -> Wave:
    """Send one, to people that are new; `last`: the number of the last request before it."""
    crowd = people(stack, count, first=last)
    with phase("sign in", count) as progress:
        signed_in = await sign_in(stack, crowd, progress)
    async with watching({part: stack.pids[part] for part in _MEASURED}) as usage:
        began = usage.look().at
        due = float(round(time.time() + 2 + 2 * count / signed_in.rate))
        with phase("start fasts", count) as progress:
            await start_fasts(stack, crowd, datetime.fromtimestamp(due, UTC), progress)
        with phase("until received", count) as progress:
            while (sent := await _accepted(stack, due)) < count and time.time() < due + _TIMEOUT:
                progress.show(sent)
                await asyncio.sleep(0.5)
            await asyncio.sleep(_TAIL)
        used = usage.cpu_between(began, usage.look().at)
    arrivals = await read_all(stack.simulator_url, crowd, after=last)
    instants = arrivals.instants
    is_sound = not (arrivals.lost or arrivals.doubled or instants[0] < due)
    cpu = sum(used[part] for part in _MEASURED) * 1000 / count
    return Wave(len(instants) / (instants[-1] - due), cpu, is_sound, arrivals.last)


async def _accepted(stack: Stack, due: float) -> int:
    """Ask our own database, since Temporal's takes longer to count the more it holds."""
    due_then = f"state = 'accepted' AND due_at = to_timestamp({due})"
    return int(await stack.ask_database(f"SELECT count(*) FROM push_tasks WHERE {due_then}"))


@asynccontextmanager
async def _collector() -> AsyncIterator[str]:
    """Take spans and throw them away."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
