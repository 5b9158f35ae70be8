"""Who may call: one-time codes for the console, and bearer tokens by a shared secret."""

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import jwt

from commands.context import actor, query, read_settings, run_directory
from db import console_sessions
from db.console_sessions import CODE_LIFETIME
from db.engine import Sessions
from settings.environment import AuthSettings, ConfigError

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
        return await console_sessions.issue(db, user_id, lifetime)


def api_address(host: str, port: str | int) -> str:
    """Tell where this machine reaches the API that listens there."""
    if host in {"", *_EVERY_ADDRESS}:
        host = "127.0.0.1"  # the console's cookie goes over http on loopback alone
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _console(arguments: argparse.Namespace) -> int:
    """Print the console's address and a code that signs in once, within ten minutes."""
    user_id = arguments.user or actor()
    code = query(lambda sessions: sign_in_code(sessions, user_id, CODE_LIFETIME))
    settings = {**read_settings(run_directory(os.environ)), **os.environ}
    print(f"console  {api_address(settings.get('API_HOST', ''), settings.get('API_PORT') or '8000')}/console")
    print(f"code     {code}")
    return 0


def _user_id(text: str) -> str:
    if not 0 < len(text) <= _LONGEST_USER_ID or not text.isprintable():
        raise argparse.ArgumentTypeError(f"a name has 1 to {_LONGEST_USER_ID} printable characters")
    return text


def bearer_token(settings: AuthSettings, user_id: str, scopes: Sequence[str], lifetime: timedelta) -> str:
    """Sign a token that the API accepts; raises ConfigError where only the issuer can."""
    if settings.jwt_secret is None:
        raise ConfigError("AUTH_JWKS_URL is set: bearer tokens come from that issuer, none can be made here.")
    now = datetime.now(UTC)
    claims: dict[str, object] = {"sub": user_id, "iat": now, "exp": now + lifetime}
    if scopes:
        claims["scope"] = " ".join(scopes)
    if settings.audience:
        claims["aud"] = settings.audience
    if settings.issuer:
        claims["iss"] = settings.issuer
    return jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm="HS256")
