"""The operators' commands: `.venv/bin/python cli.py --help`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NoReturn

from commands import backends, doctor, presentation, support
from commands import diagnostic_push as test_push
from commands import sign_in as console
from commands.context import migrate_named, read_settings, release, run_directory
from commands.sign_in import bearer_token, user_id
from domain.problems import DomainError, InvalidField
from settings.environment import AuthSettings, ConfigError, auth_settings, service_settings

_UNREAD = 141  # as shells report SIGPIPE


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status.

    1: the request cannot be served. 2: wrong arguments or settings, as in argparse.
    """
    parser = _parser()
    given = sys.argv[1:] if words is None else words
    if not all(_is_utf8(word) for word in given):
        parser.error("an argument is not UTF-8")
    arguments = parser.parse_args(given)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except (ConfigError, InvalidField) as error:
        print(error, file=sys.stderr)
        return 2
    except DomainError as error:
        print(error, file=sys.stderr)
        return 1


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _token(arguments: argparse.Namespace) -> int:
    """Print a bearer token."""
    print(bearer_token(_auth_settings(), arguments.user, arguments.scope, timedelta(hours=arguments.hours)))
    return 0


def _migrate(_: argparse.Namespace) -> int:
    """Migrate the database at DATABASE_URL to the newest migration."""
    named = {"DATABASE_URL": os.environ.get("DATABASE_URL", "")}
    asyncio.run(migrate_named(service_settings(named).database_url.get_secret_value()))
    return 0


def _version(_: argparse.Namespace) -> int:
    """Print the release of this code, and the migration that it needs."""
    print(release())
    return 0


def _auth_settings() -> AuthSettings:
    """Read how tokens are checked: from the environment, or from the run in RUN_DIR."""
    environ = {name: value for name, value in os.environ.items() if value}
    if "AUTH_JWT_SECRET" in environ or "AUTH_JWKS_URL" in environ:
        return auth_settings(environ)
    run_dir = run_directory(environ)
    settings = read_settings(run_dir)
    if not settings:
        raise ConfigError(f"AUTH_JWT_SECRET is not set, and there is no local run in {run_dir}. `make run` starts one.")
    return auth_settings({**settings, **environ})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cli.py", description="Operators' commands.")
    commands = parser.add_subparsers(required=True, metavar="command")

    token = commands.add_parser("token", help="print a bearer token", description=_token.__doc__)
    token.add_argument("--user", required=True, type=user_id, metavar="ID", help="the user or service that it names")
    token.add_argument("--scope", action="append", default=[], metavar="S", help="support or service (can be repeated)")
    token.add_argument("--hours", type=_hours, default=24.0, metavar="N", help="how many hours it is valid (24)")
    token.set_defaults(command=_token)

    migration = commands.add_parser("migrate", help="bring the database up to date", description=_migrate.__doc__)
    migration.set_defaults(command=_migrate)

    version = commands.add_parser("version", help="print the release of this code", description=_version.__doc__)
    version.set_defaults(command=_version)

    for each in (backends, support, test_push, console, doctor, presentation):
        each.add_parsers(commands)
    return parser


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= 24 * 365:
        raise argparse.ArgumentTypeError("must be a number of hours above 0, at most a year")
    return hours


def _run() -> NoReturn:
    """Run the command, and exit without an interpreter shutdown.

    The Temporal SDK's threads may crash it (sdk-python #300).
    """
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        status = _UNREAD
    with suppress(BrokenPipeError):
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _run()
