"""Credentials: one-time codes for the console, and bearer tokens signed with the shared secret."""

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import jwt

from api.http.auth import LONGEST_USER_ID, is_user_id
from commands.context import actor, query, read_settings, run_directory
from db import console_sessions
from db.console_sessions import CODE_LIFETIME
from db.engine import Sessions
from db.support_actions import Actor
from settings.environment import AuthSettings, ConfigError

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 -- compared with, not bound


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `console`."""
    console = commands.add_parser("console", help="print a code for the console", description=_console.__doc__)
    console.add_argument("--user", type=user_id, metavar="NAME", help="the operator's name (default: yours)")
    console.set_defaults(command=_console)


async def sign_in_code(sessions: Sessions, operator: Actor, lifetime: timedelta) -> str:
    """Make a one-time code."""
    async with sessions.begin() as db:
        return await console_sessions.issue(db, operator, lifetime)


def api_address(host: str, port: str | int) -> str:
    """Give the address at which this machine reaches the API."""
    if host in {"", *_EVERY_ADDRESS}:
        host = "127.0.0.1"  # browsers send the console's cookie over http only to loopback
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _console(arguments: argparse.Namespace) -> int:
    """Print the console's address and a code that works once, within ten minutes."""
    operator = Actor(arguments.user) if arguments.user else actor()
    code = query(lambda sessions: sign_in_code(sessions, operator, CODE_LIFETIME))
    settings = {**read_settings(run_directory(os.environ)), **os.environ}
    print(f"console  {api_address(settings.get('API_HOST', ''), settings.get('API_PORT') or '8000')}/console")
    print(f"code     {code}")
    return 0


def user_id(text: str) -> str:
    """Read a user id, or an operator's name; raises ArgumentTypeError."""
    if not is_user_id(text):
        raise argparse.ArgumentTypeError(f"a user id has 1 to {LONGEST_USER_ID} printable characters")
    return text


def bearer_token(settings: AuthSettings, user_id: str, scopes: Sequence[str], lifetime: timedelta) -> str:
    """Sign a token that the API accepts; raises ConfigError if only the issuer can."""
    if settings.jwks_url is not None:
        raise ConfigError("AUTH_JWKS_URL is set, so only its issuer can make bearer tokens.")
    if settings.jwt_secret is None:
        raise ConfigError("AUTH_JWT_SECRET is not set, so only API keys are accepted: see `cli.py api-keys`.")
    now = datetime.now(UTC)
    claims: dict[str, object] = {"sub": user_id, "iat": now, "exp": now + lifetime}
    if scopes:
        claims["scope"] = " ".join(scopes)
    if settings.audience:
        claims["aud"] = settings.audience
    if settings.issuer:
        claims["iss"] = settings.issuer
    return jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm="HS256")
