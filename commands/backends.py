"""What backends use: `cli.py api-keys`, the keys that they call the API with; `webhooks`, where events are sent."""

import argparse
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from commands.context import actor, print_json, print_list, read, up_to, write
from commands.sign_in import user_id
from db import api_keys, webhook_deliveries, webhooks
from db.api_keys import ApiKey
from db.webhook_deliveries import LoggedDelivery
from db.webhooks import ShownWebhook
from domain.problems import NotFound


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `api-keys` and `webhooks` with their own commands."""
    _add_api_keys(commands)
    _add_webhooks(commands)


def _add_webhooks(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


_SCOPES = ("service", "support")
_MOST_DAYS = 3650


def _add_api_keys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    actions = commands.add_parser("api-keys", help="the keys that backends call the API with").add_subparsers(
        required=True, metavar="action"
    )
    creating = actions.add_parser("create", help="create a key and print it, once", description=_create.__doc__)
    creating.add_argument("--name", required=True, type=user_id, metavar="N", help="the caller that uses it")
    creating.add_argument(
        "--scope", required=True, action="append", choices=_SCOPES, help="what it may do (can be repeated)"
    )
    creating.add_argument(
        "--expires-in-days", type=up_to(_MOST_DAYS, "a number of days"), metavar="D", help="default: it does not expire"
    )
    creating.set_defaults(command=_create)
    listing = actions.add_parser("list", help="list the keys, without their text", description=_list_keys.__doc__)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(command=_list_keys)
    revoking = actions.add_parser("revoke", help="end a key", description=_revoke.__doc__)
    which = revoking.add_mutually_exclusive_group(required=True)
    which.add_argument("which", nargs="?", metavar="ID", help="from the column ID of `api-keys list`, or a name")
    which.add_argument("--name", metavar="N", help="all keys of this name")
    revoking.set_defaults(command=_revoke)


def _create(arguments: argparse.Namespace) -> int:
    """Create an API key and print it, and nothing else. It is not stored, so it cannot be shown again."""
    days: int | None = arguments.expires_in_days
    lasts = None if days is None else timedelta(days=days)
    print(write(lambda db: api_keys.create(db, arguments.name, arguments.scope, lasts=lasts, actor=actor())))
    return 0


def _list_keys(arguments: argparse.Namespace) -> int:
    """List all API keys, the newest first. LAST USED is up to a minute old."""
    titles = ("ID", "NAME", "SCOPES", "STATE", "CREATED", "EXPIRES", "LAST USED")
    return print_list(arguments, read(api_keys.all_keys), titles, _key)


def _key(key: ApiKey) -> tuple[object, ...]:
    return key.key_id, key.name, " ".join(key.scopes), key.state, key.created_at, key.expires_at, key.last_used_at


def _revoke(arguments: argparse.Namespace) -> int:
    """Revoke an API key, or all of one name. API processes refuse it within 5 seconds."""
    revoked = write(lambda db: api_keys.revoke(db, arguments.which or arguments.name, actor=actor()))
    for key in revoked:
        print(f"Revoked {key.key_id} ({key.name}).")
    return 0
