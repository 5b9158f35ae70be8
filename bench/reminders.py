"""`python -m bench.reminders`: how late reminders are that are all due at one instant, armed and not armed."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import psutil

from bench.measure import Figures, measure
from bench.receiver import Receiver, at_hand
from bench.report import machine, report
from settings.environment import ServiceSettings

_ARM_WINDOW: float = ServiceSettings.model_fields["arm_window"].default


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the status is 1 if a reminder was lost, doubled or early. Slowness is no failure."""
    options = _parser().parse_args(arguments)
    windows = options.windows or [_ARM_WINDOW, 0.0]
    try:
        runs = asyncio.run(_runs(options, windows))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    columns = [[run for run in runs if run.arm_window == window] for window in windows]
    print(f"{options.sessions} reminders due at one instant, {options.receiver} receiver; {machine()}; ", end="")
    print(f"median of {options.runs} run(s)\n")
    print(report(columns))
    if options.json:
        options.json.write_text(json.dumps([asdict(run) for run in runs], indent=1))
    return 0 if all(run.is_sound for run in runs) else 1


async def _runs(options: argparse.Namespace, windows: Sequence[float]) -> list[Figures]:
    runs, cores = [], psutil.cpu_count() or 1
    for number in range(options.runs):
        for window in windows:
            print(f"Run {number + 1}, ARM_WINDOW={window:g}, {options.sessions} reminders", file=sys.stderr)
            runs.append(await measure(options.sessions, window, cores, options.workers, options.receiver))
    return runs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.reminders", description=__doc__)
    parser.add_argument("--sessions", type=int, default=2000, metavar="N", help="half of the phones are iPhones (2000)")
    parser.add_argument(
        "--arm-window",
        type=float,
        action="append",
        dest="windows",
        metavar="S",
        help=f"seconds; may be repeated ({_ARM_WINDOW:g} and 0)",
    )
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="how often; medians are printed (1)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="worker processes (1)")
    parser.add_argument(
        "--receiver",
        type=Receiver,
        choices=list(Receiver),
        default=at_hand(),
        help="stands in for the providers: one that is never the limit, or the simulator (light, where Node is)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's figures, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
