"""`python -m bench.providers`: what a send to a provider costs, with our clients and with the usual ones."""

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from bench.progress import Progress
from bench.providers_load import CANDIDATES, LoadLevel
from bench.providers_process import Orders, TargetServer, running_server, wire_limit, worked
from bench.providers_report import OURS, Round, report, sound

_FULL = Orders((1, 32, 100, 500), 2.0, 100_000)
_QUICK = Orders((1, 32), 0.3, 2_000)
_WIRE = "the wire: h2load, HTTP/2"

Work = Callable[[Orders, Callable[[], None]], list[LoadLevel]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the status is 1 if a send of ours failed. Slowness is no failure."""
    options = _parser().parse_args(arguments)
    orders = _QUICK if options.quick else replace(_FULL, seconds=options.seconds)
    os.environ |= {"NO_PROXY": "*", "no_proxy": "*"}  # all of it stays on this machine
    try:
        with tempfile.TemporaryDirectory(prefix="fastbell-bench-") as made:
            directory = Path(made)
            with running_server(directory) as server:
                numbers = range(1 if options.quick else options.rounds)
                rounds = [_round(options.only, orders, server, directory, number) for number in numbers]
    except KeyboardInterrupt:
        return 130
    print(report(rounds, orders))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in rounds], indent=1))
    return 0 if sound(rounds) else 1


def _round(only: Sequence[str], orders: Orders, server: TargetServer, directory: Path, number: int) -> Round:
    wanted = only or (*CANDIDATES, _WIRE)
    works: dict[str, Work] = {name: partial(worked, name, server.target) for name in CANDIDATES if name in wanted}
    if _WIRE in wanted:
        works[_WIRE] = partial(wire_limit, server.target, directory)
    levels, cores = {}, {}
    for name in random.Random(number).sample(list(works), len(works)):  # in another order each round
        mine = replace(orders, memory=orders.memory if number == 0 and name in OURS else 0)
        levels[name], cores[name] = _watched(f"{number + 1}: {name}", works[name], mine, server)
    missing = []
    if not levels.get(_WIRE, [()]):
        missing.append(_WIRE)
        del levels[_WIRE]
    order = [name for name in works if name in levels]
    return Round({name: levels[name] for name in order}, {name: cores[name] for name in order}, missing)


def _watched(title: str, work: Work, orders: Orders, server: TargetServer) -> tuple[list[LoadLevel], float]:
    """Run one sender; also gives how many cores the server used in its busiest level."""
    progress = Progress(title, len(orders.levels))
    progress.show(0)
    looks = [(time.perf_counter(), server.cpu())]

    def on_level() -> None:
        looks.append((time.perf_counter(), server.cpu()))
        progress.show(len(looks) - 1)

    levels = work(orders, on_level)
    progress.finish()
    pairs = itertools.pairwise(looks)
    return levels, max(((cpu - cpu0) / (at - at0) for (at0, cpu0), (at, cpu) in pairs), default=0.0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.providers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often; medians are printed (3)")
    parser.add_argument("--seconds", type=float, default=_FULL.seconds, metavar="S", help="of measuring per figure (2)")
    parser.add_argument("--quick", action="store_true", help="one small round, to see that it runs")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=(*CANDIDATES, _WIRE),
        metavar="NAME",
        help="this sender, named as in the first column; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
