"""`cli.py test-push`: send somebody a test push and follow it to the end."""

import argparse
import asyncio
from uuid import UUID

from commands.context import actor, cell, print_json, query
from db.engine import Sessions
from domain.diagnostic_push import AskedTest, ShownTestPush
from domain.push import TaskState
from operations import diagnostic_push as test_pushes

_LOOK_EVERY = 0.25  # seconds
_GIVE_UP = 330.0  # seconds; a test push is of use for five minutes


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `test-push`."""
    sending = commands.add_parser(
        "test-push", help="send somebody a test push and follow it", epilog="Exit status 0: each phone's was accepted."
    )
    sending.add_argument("--user", required=True, metavar="ID")
    sending.add_argument("--installation", type=UUID, metavar="ID", help="only this one")
    sending.add_argument("--validate-only", action="store_true", help="let FCM check it; no phone is told")
    sending.add_argument("--json", action="store_true", help="as JSON, once it is settled")
    sending.set_defaults(command=_send)


def _send(arguments: argparse.Namespace) -> int:
    wanted = AskedTest(arguments.user, arguments.installation, arguments.validate_only)

    async def ask(sessions: Sessions) -> ShownTestPush:
        async with sessions.begin() as db:
            found = await test_pushes.send(db, wanted, actor())
        told: dict[UUID, str] = {}
        looks = round(_GIVE_UP / _LOOK_EVERY)
        while not found.is_settled and looks:
            _tell(found, told, arguments)
            await asyncio.sleep(_LOOK_EVERY)
            looks -= 1
            async with sessions() as db:
                found = await test_pushes.shown(db, found.test_push_id) or found
        _tell(found, told, arguments)
        return found

    found = query(ask)
    if arguments.json:
        print_json(found)
    return 0 if all(phone.state is TaskState.ACCEPTED for phone in found.items) else 1


def _tell(found: ShownTestPush, told: dict[UUID, str], arguments: argparse.Namespace) -> None:
    """Say what is new."""
    if arguments.json:
        return
    if not told:
        for installation_id in found.skipped:
            print(f"{installation_id}  apns  Skipped: Apple has no dry run.")
    for phone in found.items:
        if told.get(phone.task_id) != phone.text:
            told[phone.task_id] = phone.text
            print(f"{phone.installation_id}  {phone.provider}  {cell(phone.text)}", flush=True)
