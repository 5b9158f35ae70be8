"""`cli.py api-keys`: the keys that backends call the API with."""

import argparse
from datetime import timedelta

from commands.context import actor, print_list, read, up_to, write
from commands.sign_in import user_id
from db import api_keys
from db.api_keys import ApiKey

_SCOPES = ("service", "support")
_MOST_DAYS = 3650


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `api-keys` with its own commands."""
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
    listing = actions.add_parser("list", help="list the keys, without their text", description=_list.__doc__)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(command=_list)
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


def _list(arguments: argparse.Namespace) -> int:
    """List all API keys, the newest first. LAST USED is up to a minute old."""
    titles = ("ID", "NAME", "SCOPES", "STATE", "CREATED", "EXPIRES", "LAST USED")
    return print_list(arguments, read(api_keys.all_keys), titles, _line)


def _line(key: ApiKey) -> tuple[object, ...]:
    return key.key_id, key.name, " ".join(key.scopes), key.state, key.created_at, key.expires_at, key.last_used_at


def _revoke(arguments: argparse.Namespace) -> int:
    """Revoke an API key, or all of one name. API processes refuse it within 5 seconds."""
    revoked = write(lambda db: api_keys.revoke(db, arguments.which or arguments.name, actor=actor()))
    for key in revoked:
        print(f"Revoked {key.key_id} ({key.name}).")
    return 0
