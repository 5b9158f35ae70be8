"""`python -m bench.telemetry`: what metrics and traces cost, with and without them in one run.

Each round starts the whole product once for each way, in an order of its own. All reminders are due at one instant and
nothing is armed before (ARM_WINDOW=0), so that throughput is what the machine can do.
"""

import argparse
import asyncio
import random
import statistics
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import psutil

from bench.measure import Figures, measure
from bench.report import machine
from bench.stack import Way

GOAL = 0.95  # of the throughput without metrics and traces

_LAUNCHED = ("-m", "bench.launched")
_WITHOUT = "neither"
_OURS = ("worker", "api")


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; the status is 1 if a reminder was lost, doubled or early. Slowness is no failure."""
    parser = argparse.ArgumentParser(prog="python -m bench.telemetry", description=__doc__)
    parser.add_argument("--sessions", type=int, default=400, metavar="N", help="reminders in each run (400)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often; medians are printed (3)")
    asked = parser.parse_args(words)
    try:
        rounds = asyncio.run(_rounds(asked.sessions, asked.rounds))
    except KeyboardInterrupt:
        return 130
    print(f"{asked.sessions} reminders, not armed; {machine()}; median of {asked.rounds} round(s)\n")
    print(f"{'':<28} {'per second':>12} {'ratio':>8} {'CPU of worker and API, ms':>28} {'ratio':>8}")
    for name in rounds[0]:
        rates, costs = ([of(each[name]) for each in rounds] for of in (_rate, _cost))
        by_rate, by_cost = (
            statistics.median(of(each[name]) / of(each[_WITHOUT]) for each in rounds) for of in (_rate, _cost)
        )
        rate, cost = statistics.median(rates), statistics.median(costs)
        print(f"{name:<28} {rate:>12.1f} {by_rate:>8.3f} {cost:>28.1f} {by_cost:>8.3f}")
    print(f"\ngoal: a ratio per second of at least {GOAL}")
    return 0 if all(figures.is_sound for each in rounds for figures in each.values()) else 1


async def _rounds(sessions: int, count: int) -> list[Mapping[str, Figures]]:
    async with _collector() as endpoint:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        sampled = traced | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.05"}
        ways = {
            _WITHOUT: Way(launcher=(*_LAUNCHED, "without")),
            "metrics": Way(launcher=(*_LAUNCHED, "with")),
            "metrics, 5 % of traces": Way(sampled, (*_LAUNCHED, "with")),
            "metrics, all traces": Way(traced, (*_LAUNCHED, "with")),
        }
        rounds: list[Mapping[str, Figures]] = []
        for number in range(count):
            found = {}
            for name in random.Random(number).sample(list(ways), len(ways)):  # so that nobody always runs first
                print(f"Round {number + 1}: {name}", file=sys.stderr)
                found[name] = await measure(sessions, 0.0, psutil.cpu_count() or 1, ways[name])
            rounds.append({name: found[name] for name in ways})
        return rounds


def _rate(figures: Figures) -> float:
    """Reminders per second from the due instant until the last was received."""
    return figures.received_per_second


def _cost(figures: Figures) -> float:
    """Milliseconds of our processes' CPU per reminder."""
    return sum(figures.cpu[part] for part in _OURS)


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
