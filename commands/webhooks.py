"""`cli.py webhooks`: how each is doing, its last deliveries, and a redrive of dead ones."""

import argparse
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from commands.context import print_json, print_list, read, up_to, write
from db import webhook_deliveries, webhooks
from db.webhook_deliveries import LoggedDelivery
from db.webhooks import ShownWebhook
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
    showing.add_argument(
        "--limit", type=up_to(webhook_deliveries.MAX_REDRIVEN), default=50, metavar="N", help="at most N (50)"
    )
    showing.set_defaults(command=_deliveries)

    redriving = actions.add_parser(
        "redrive", help="send dead deliveries again, the oldest first; each is tried for another day"
    )
    redriving.add_argument("webhook", type=UUID, metavar="ID")
    redriving.set_defaults(command=_redrive)
    for each in (listing, showing, redriving):
        each.add_argument("--json", action="store_true", help="print JSON")


def _list(arguments: argparse.Namespace) -> int:
    titles = ("WEBHOOK", "STATE", "SINCE", "LAST ACCEPTED", "PENDING", "DEAD", "BEHIND", "MISSED", "URL")
    return print_list(arguments, read(webhooks.shown), titles, _webhook)


def _webhook(each: ShownWebhook) -> tuple[object, ...]:
    since, counts = each.disabled_at or each.failing_since, (each.pending, each.dead, each.behind, each.missed)
    return each.id, each.state, since, each.last_accepted_at, *counts, each.url


def _deliveries(arguments: argparse.Namespace) -> int:
    async def ask(db: AsyncSession) -> list[LoggedDelivery]:
        await webhooks.one(db, arguments.webhook)
        return await webhook_deliveries.log_of(db, arguments.webhook, None, arguments.limit)

    titles = ("DELIVERY", "CREATED", "EVENT", "TYPE", "STATE", "TRIES", "STATUS", "REASON", "NEXT")
    return print_list(arguments, read(ask), titles, _delivery)


def _delivery(each: LoggedDelivery) -> tuple[object, ...]:
    what = (each.id, each.created_at, each.event_id, each.type, each.state)
    return *what, each.attempts, each.status, each.reason, each.next_attempt_at


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
