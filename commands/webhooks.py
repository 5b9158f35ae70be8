"""`cli.py webhooks`: how each is doing, its last deliveries, and a redrive of dead ones."""

import argparse
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from commands.context import print_json, print_table, read, write
from db import webhook_deliveries, webhooks
from db.webhook_deliveries import LoggedDelivery
from domain.problems import NotFound


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `webhooks` with its own commands."""
    actions = commands.add_parser("webhooks", help="addresses that are sent events").add_subparsers(
        required=True, metavar="action"
    )
    listing = actions.add_parser("list", help="list them, the newest first")
    listing.set_defaults(command=_list)

    showing = actions.add_parser("deliveries", help="list the last deliveries of one, the latest first")
    showing.add_argument("webhook", type=UUID, metavar="ID")
    showing.add_argument("--limit", type=_limit, default=50, metavar="N", help="at most N (50)")
    showing.set_defaults(command=_deliveries)

    redriving = actions.add_parser(
        "redrive", help="send dead deliveries again, the oldest first; each is tried for another day"
    )
    redriving.add_argument("webhook", type=UUID, metavar="ID")
    redriving.set_defaults(command=_redrive)
    for each in (listing, showing, redriving):
        each.add_argument("--json", action="store_true", help="print JSON")


def _list(arguments: argparse.Namespace) -> int:
    found = read(webhooks.shown)
    if arguments.json:
        print_json(found)
        return 0
    titles = ("WEBHOOK", "STATE", "SINCE", "LAST ACCEPTED", "PENDING", "DEAD", "BEHIND", "MISSED", "URL")
    rows = [
        (
            *(each.id, each.state, each.disabled_at or each.failing_since, each.last_accepted_at),
            *(each.pending, each.dead, each.behind, each.missed, each.url),
        )
        for each in found
    ]
    print_table(titles, rows)
    return 0


def _deliveries(arguments: argparse.Namespace) -> int:
    async def ask(db: AsyncSession) -> list[LoggedDelivery]:
        if not await webhooks.shown(db, arguments.webhook):
            raise NotFound("webhook")
        return await webhook_deliveries.log_of(db, arguments.webhook, None, arguments.limit)

    found = read(ask)
    if arguments.json:
        print_json(found)
        return 0
    titles = ("DELIVERY", "CREATED", "EVENT", "TYPE", "STATE", "TRIES", "STATUS", "REASON", "NEXT")
    rows = [
        (
            *(each.id, each.created_at, each.event_id, each.type, each.state),
            *(each.attempts, each.status, each.reason, each.next_attempt_at),
        )
        for each in found
    ]
    print_table(titles, rows)
    return 0


def _redrive(arguments: argparse.Namespace) -> int:
    async def change(db: AsyncSession) -> int:
        if not await webhooks.exists(db, arguments.webhook):
            raise NotFound("enabled webhook")
        redriven = await webhook_deliveries.redrive(db, arguments.webhook)
        await webhooks.notify(db, arguments.webhook)
        return redriven

    redriven = write(change)
    if arguments.json:
        print_json({"redriven": redriven})
    else:
        print(f"{redriven} deliveries are sent again.")
    return 0


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= webhook_deliveries.MAX_REDRIVEN:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {webhook_deliveries.MAX_REDRIVEN}")
    return int(text)
