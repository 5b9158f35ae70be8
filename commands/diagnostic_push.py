"""`cli.py test-push`: send a test push to a user and follow it to its end."""

import argparse
import asyncio
from uuid import UUID

from commands.context import actor, cell, print_json, query
from commands.sign_in import user_id
from db.engine import Sessions
from domain.push import TaskState
from operations import diagnostic_push as test_pushes
from operations.diagnostic_push import ShownTestPush, TestPushRequest

_LOOK_EVERY = 0.25  # seconds
_GIVE_UP = 330.0  # seconds; a test push expires after five minutes


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `test-push`."""
    sending = commands.add_parser(
        "test-push", help="send a test push to a user and follow it", epilog="Exit status 0: every push was accepted."
    )
    sending.add_argument("--user", required=True, type=user_id, metavar="ID")
    sending.add_argument("--installation", type=UUID, metavar="ID", help="only this phone")
    sending.add_argument("--validate-only", action="store_true", help="FCM only checks the push; no phone gets it")
    sending.add_argument("--json", action="store_true", help="print JSON when every push is settled")
    sending.set_defaults(command=_send)


def _send(arguments: argparse.Namespace) -> int:
    wanted = TestPushRequest(arguments.user, arguments.installation, arguments.validate_only)

    async def ask(sessions: Sessions) -> ShownTestPush:
        async with sessions.begin() as db:
            shown = await test_pushes.send(db, wanted, actor())
        printed: dict[UUID, str] = {}
        looks = round(_GIVE_UP / _LOOK_EVERY)
        while not shown.is_settled and looks:
            _print(shown, printed, arguments)
            await asyncio.sleep(_LOOK_EVERY)
            looks -= 1
            async with sessions() as db:
                shown = await test_pushes.shown(db, shown.test_push_id) or shown
        _print(shown, printed, arguments)
        return shown

    shown = query(ask)
    if arguments.json:
        print_json(shown)
    return 0 if all(phone.state is TaskState.ACCEPTED for phone in shown.items) else 1


def _print(shown: ShownTestPush, printed: dict[UUID, str], arguments: argparse.Namespace) -> None:
    """Print what has changed."""
    if arguments.json:
        return
    if not printed:
        for installation_id in shown.skipped:
            print(f"{installation_id}  apns  Skipped: Apple has no dry run.")
    for phone in shown.items:
        if printed.get(phone.task_id) != phone.text:
            printed[phone.task_id] = phone.text
            print(f"{phone.installation_id}  {phone.provider}  {cell(phone.text)}", flush=True)
