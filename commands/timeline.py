"""`cli.py timeline`: what a user's pushes wait for now, what was decided about them, and why."""

import argparse
import sys
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from commands.context import cell, print_json, read, up_to
from db.engine import as_of_one_moment
from db.views import present, timeline
from domain.timeline import TimelineItem, TimelinePart

_MOST = 1000


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `timeline`."""
    timeline = commands.add_parser("timeline", help="what happened to a user's pushes, and why")
    timeline.add_argument("--user", required=True, metavar="ID")
    timeline.add_argument("--session", type=UUID, metavar="ID", help="only this fasting session and its reminders")
    timeline.add_argument("--message", type=UUID, metavar="ID", help="only this message")
    timeline.add_argument("--limit", type=up_to(_MOST), default=50, metavar="N", help="the latest N (50)")
    timeline.add_argument("--json", action="store_true", help="print JSON: the present, then the latest first")
    timeline.set_defaults(command=_timeline)


def _timeline(arguments: argparse.Namespace) -> int:
    part = TimelinePart(arguments.session, arguments.message)

    async def ask(db: AsyncSession) -> tuple[list[TimelineItem], list[TimelineItem]]:
        await as_of_one_moment(db)
        now = await present.of_user(db, arguments.user, part)
        return now, await timeline.of_user(db, arguments.user, part, None, arguments.limit)

    now, past = read(ask)
    if arguments.json:
        print_json(now + past)
    else:
        _print(now, past)
    if not now and not past:
        about = " in this part of their timeline" if part != TimelinePart() else ""
        print(f"Nothing is known of {cell(arguments.user)}{about}.", file=sys.stderr)
    return 0


def _print(now: list[TimelineItem], past: list[TimelineItem]) -> None:
    """Print the present, then what happened, in order."""
    if now:
        print(f"Now ({cell(now[0].at)}):")
        for item in now:
            print(f"  {cell(item.text)}")
        print("\nWhat happened:")
    for item in reversed(past):
        print(f"{cell(item.at)}  {cell(item.text)}")
