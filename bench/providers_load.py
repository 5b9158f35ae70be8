"""`python -m bench.providers_load CANDIDATE`: one sender in a process of its own, so that its CPU is its own.

Reads its orders from standard input and writes a line of JSON for each that it carried out.
"""

import asyncio
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import structlog
import uvloop

from bench import providers_known
from bench.percentiles import percentile
from bench.providers_target import CallOutcome, Candidate, Run, Supply, Target, apns_pushes, fcm_pushes
from domain.push import Push

CANDIDATES: Mapping[str, tuple[Candidate, Callable[[], Iterator[Push]]]] = {
    "APNs: ours": (providers_known.our_apns, apns_pushes),
    "APNs: aioapns": (providers_known.plain_aioapns, apns_pushes),
    "FCM: ours": (providers_known.our_fcm, fcm_pushes),
    "FCM: firebase-admin send": (providers_known.firebase_send, fcm_pushes),
    "FCM: firebase-admin send_each_async": (providers_known.firebase_send_each_async, fcm_pushes),
}
_WARM_UP = 0.25  # of the time measured, before it
_HANGS_AFTER = 30.0  # seconds after the last send was begun


@dataclass(frozen=True, slots=True)
class LoadLevel:
    """What one sender did with so many sends in flight."""

    in_flight: int
    sends: int
    failures: Mapping[str, int]  # by reason; those that never returned among them
    cpu: float  # seconds of this process, all its threads
    wall: float  # seconds
    p50: float  # seconds per send
    p99: float
    resident: list[int]  # bytes, looked at ten times over the run where memory is asked for

    @property
    def failed(self) -> int:
        """Sends that were not accepted."""
        return sum(self.failures.values())


def main() -> None:
    """Carry the orders out."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    orders = json.load(sys.stdin)
    uvloop.run(_carried_out(sys.argv[1], orders))


async def _carried_out(name: str, orders: dict[str, Any]) -> None:
    candidate, pushes = CANDIDATES[name]
    given = orders["target"]
    on_level: dict[str, Any] = {key: Path(value) if key.endswith("_file") else value for key, value in given.items()}
    async with candidate(Target(**on_level)) as run:
        for in_flight in orders["levels"]:
            await _level(run, Supply(pushes(), until=time.perf_counter() + orders["seconds"] * _WARM_UP), in_flight)
            supply = Supply(pushes())
            supply.until = time.perf_counter() + orders["seconds"]
            _tell(await _level(run, supply, in_flight))
        if count := orders["memory"]:
            _tell(await _level(run, Supply(pushes(), count=count, look_every=count // 10), 100))


async def _level(run: Run, supply: Supply, in_flight: int) -> LoadLevel:
    outcome = CallOutcome(deque(maxlen=1_000) if supply.count else deque())  # what is kept would be taken for a leak
    patience = _HANGS_AFTER + (supply.until - time.perf_counter() if supply.count is None else 600)
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        async with asyncio.timeout(patience):
            await run(supply, in_flight, outcome)
    except TimeoutError:
        outcome.failures["never returned"] = supply.taken - outcome.accepted - outcome.failures.total()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if supply.look_every:
        supply.resident.append(psutil.Process().memory_info().rss)
    took = sorted(outcome.seconds)
    p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
    return LoadLevel(in_flight, outcome.accepted, +outcome.failures, cpu, wall, p50, p99, supply.resident)


def _tell(level: LoadLevel) -> None:
    print(json.dumps(asdict(level)), flush=True)


if __name__ == "__main__":
    main()
