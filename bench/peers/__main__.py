"""Compare with Celery and bare Temporal: a burst, a worker and then the broker killed in one, and memory.

The status is 1 if Fastbell lost or doubled a reminder. Slowness is no failure, nor is what others lose.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.arrivals import Arrivals, read_all, wait_for
from bench.peers.candidates import CANDIDATES, INSTALLED, WORKERS, Candidate, Peer, versions
from bench.percentiles import percentile
from bench.progress import phase
from bench.report import machine
from bench.usage import Usage

BURST, WORKER, BROKER = "burst", "a worker killed in the burst", "the broker killed in the burst"
_KILLED_AFTER = 0.2  # of the reminders have arrived
_AWAY = {WORKER: 1.0, BROKER: 3.0}  # seconds until it is started again
_PATIENCE = 60.0  # seconds
_SLEEP = 16 * 3600.0  # seconds that the scheduled sleep
_PAUSE = 10.0  # seconds before memory is read


@dataclass(frozen=True, slots=True)
class Burst:
    """How one burst went; lateness in seconds."""

    peer: str
    trouble: str
    p50: float
    p99: float
    max: float
    lost: int  # not there when no more was waited for
    doubled: int
    early: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident megabytes with nothing and with so many scheduled, by part."""

    peer: str
    before: dict[str, float]
    after: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all and print a table."""
    options = _parser().parse_args(arguments)
    if not INSTALLED.is_dir():
        raise SystemExit("Celery and Redis are not installed: `make bench-peers` does it.")
    sys.path.append(str(INSTALLED))
    os.environ |= {"NO_PROXY": "*", "no_proxy": "*"}  # all of it stays on this machine
    try:
        bursts, memories = asyncio.run(_measured(options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    print(f"{options.reminders} reminders due at one instant, two workers each; {machine()}; {versions()}\n")
    print(_table(bursts, memories, options.scheduled))
    if options.json:
        figures = [*map(asdict, bursts), *map(asdict, memories)]
        options.json.write_text(json.dumps(figures, indent=1))
    return 1 if any(each.lost or each.doubled for each in bursts if each.peer == "Fastbell") else 0


async def _measured(options: argparse.Namespace) -> tuple[list[Burst], list[Memory]]:
    names = options.only or list(CANDIDATES)
    bursts, memories = [], []
    for trouble in (BURST, WORKER, BROKER):
        for name in names:
            print(f"{name}: {trouble}", file=sys.stderr)
            bursts.append(await _burst(name, trouble, options.reminders, options.patience))
            print(f"  {bursts[-1]}", file=sys.stderr)
    if options.scheduled:
        for name in names:
            print(f"{name}: {options.scheduled} scheduled", file=sys.stderr)
            memories.append(await _memory(name, CANDIDATES[name], options.scheduled))
            print(f"  {memories[-1]}", file=sys.stderr)
    return bursts, memories


async def _burst(name: str, trouble: str, count: int, patience: float) -> Burst:
    async with CANDIDATES[name](count, None) as peer:
        due = float(round(time.time() + peer.lead))
        await peer.schedule(due)
        if time.time() > due:
            raise SystemExit(f"Scheduling took longer than the {peer.lead:.0f} s that were planned.")
        with phase("until due", round(due - time.time())):
            await asyncio.sleep(due - time.time())
        if trouble != BURST:
            await _kill(peer, WORKERS[0] if trouble == WORKER else peer.broker, round(count * _KILLED_AFTER), trouble)
        with phase("until received", count) as progress:
            await wait_for(peer.simulator_url, count, due + patience, progress)
        if trouble != BURST:  # what is sent again is sent late
            with phase("until nothing more comes"):
                await asyncio.sleep(max(due + patience - time.time(), 0))
        return _judged(name, trouble, due, await read_all(peer.simulator_url, peer.crowd))


async def _kill(peer: Peer, part: str, after: int, trouble: str) -> None:
    with phase(f"until {part} is killed", after) as progress:
        await wait_for(peer.simulator_url, after, time.time() + _PATIENCE, progress)
    os.kill(peer.pids[part], signal.SIGKILL)
    await asyncio.sleep(_AWAY[trouble])
    await peer.start_again(part)


def _judged(name: str, trouble: str, due: float, arrivals: Arrivals) -> Burst:
    late = [instant - due for instant in arrivals.instants]
    p50, p99, longest = (percentile(late, share) for share in (0.5, 0.99, 1.0))
    early = sum(each < 0 for each in late)
    return Burst(name, trouble, p50, p99, longest, arrivals.lost, arrivals.doubled, early)


async def _memory(name: str, candidate: Candidate, count: int) -> Memory:
    async with candidate(count, _SLEEP) as peer:
        await asyncio.sleep(_PAUSE)  # until all have started
        before = Usage(peer.pids).look().memory
        await peer.schedule(time.time() + _SLEEP)
        await asyncio.sleep(_PAUSE)
        return Memory(name, dict(before), dict(Usage(peer.pids).look().memory))


def _table(bursts: Sequence[Burst], memories: Sequence[Memory], scheduled: int) -> str:
    """Write a table in Markdown, a column for each that was measured."""
    names = list(dict.fromkeys(each.peer for each in bursts))
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for trouble in dict.fromkeys(each.trouble for each in bursts):
        some = [each for each in bursts if each.trouble == trouble]
        late = [f"{each.p50:.2f} / {each.p99:.2f} / {each.max:.2f}" for each in some]
        lines.append(f"| {trouble}: late p50 / p99 / max, s | {' | '.join(late)} |")
        lines.append(
            f"| never came, doubled, early | {' | '.join(f'{x.lost}, {x.doubled}, {x.early}' for x in some)} |"
        )
    if memories:
        cells = [
            ", ".join(
                f"{part} {each.before[part]:.0f} → {mb:.0f}" for part, mb in each.after.items() if part != "simulator"
            )
            for each in memories
        ]
        lines.append(f"| memory with nothing and with {scheduled} scheduled, MB | {' | '.join(cells)} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--reminders", type=int, default=2000, metavar="N", help="due at one instant (2000)")
    parser.add_argument(
        "--scheduled", type=int, default=10_000, metavar="N", help="for memory; 0: leave it out (10000)"
    )
    parser.add_argument(
        "--patience", type=float, default=_PATIENCE, metavar="S", help=f"seconds for what is late ({_PATIENCE:g})"
    )
    parser.add_argument(
        "--only", action="append", default=[], choices=tuple(CANDIDATES), metavar="NAME", help="this one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
