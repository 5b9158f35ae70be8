"""`cli.py doctor`: whether reminders can reach phones with these settings, and what to do if not."""

import argparse
import asyncio
import logging
import os

import structlog

from commands.context import cell, print_json
from commands.doctor.report import Level, Report, counted

PROCESSES = ("api", "worker")


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="check everything that reminders need",
        description="Check settings, database, Temporal, Apple and Google as the processes see them, and say what to "
        "do. Makes one call to each provider, with a token that no phone has. Exit status 1: at least one failure.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--offline", action="store_true", help="check only settings and files, without the network")
    parser.add_argument("--process", choices=PROCESSES, help="check only what this process needs")
    parser.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from commands.doctor.checks import examined, settings_here  # noqa: PLC0415 -- other commands start faster without it

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # the report says it
    environ = settings_here(os.environ)
    processes = PROCESSES if arguments.process is None else (arguments.process,)
    report = asyncio.run(examined(environ, processes, offline=arguments.offline))
    if arguments.json:
        print_json(report)
    else:
        _tell(report)
    return 0 if report.healthy else 1


_MARKS = {Level.OK: "ok       ", Level.WARNING: "WARNING  ", Level.FAILURE: "FAILURE  ", Level.REMINDER: "remember "}


def _tell(report: Report) -> None:
    for line in report.items:
        print(f"{_MARKS[line.level]} {line.area}: {cell(line.found)}")
        for more in (line.to_do, line.link):
            if more:
                print(f"{'':10}{more}")
    print(f"\n{report.ok} ok, {counted(report.warnings, 'warning')}, {counted(report.failures, 'failure')}.")
