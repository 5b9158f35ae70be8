"""`cli.py console`: a one-time code that signs somebody in to the console."""

import argparse
import os
from datetime import timedelta

from commands.asking import actor, asked
from commands.run_directory import read_settings, run_directory
from db import console_codes
from db.engine import Sessions
from domain.console import CODE_LIFETIME

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 -- compared with, not bound
_LONGEST_USER_ID = 200


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `console`."""
    console = commands.add_parser("console", help="sign in to the console", description=_console.__doc__)
    console.add_argument("--user", type=_user_id, metavar="NAME", help="who does what is done there (you)")
    console.set_defaults(command=_console)


async def sign_in_code(sessions: Sessions, user_id: str, lifetime: timedelta) -> str:
    """Make a code, for once."""
    async with sessions.begin() as db:
        return await console_codes.issue(db, user_id, lifetime)


def api_address(host: str, port: str | int) -> str:
    """Tell where this machine reaches the API that listens there."""
    if host in {"", *_EVERY_ADDRESS}:
        host = "127.0.0.1"  # the console's cookie goes over http on loopback alone
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _console(arguments: argparse.Namespace) -> int:
    """Print the console's address and a code that signs in once, within ten minutes."""
    user_id = arguments.user or actor()
    code = asked(lambda sessions: sign_in_code(sessions, user_id, CODE_LIFETIME))
    settings = {**read_settings(run_directory(os.environ)), **os.environ}
    print(f"console  {api_address(settings.get('API_HOST', ''), settings.get('API_PORT') or '8000')}/console")
    print(f"code     {code}")
    return 0


def _user_id(text: str) -> str:
    if not 0 < len(text) <= _LONGEST_USER_ID or not text.isprintable():
        raise argparse.ArgumentTypeError(f"a name has 1 to {_LONGEST_USER_ID} printable characters")
    return text
