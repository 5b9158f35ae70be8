"""Who is signed in to the console: one-time codes, and the sessions that they open; stored as digests only.

Retention deletes what has expired (`db/retention.py`).
"""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import support_actions
from db.models.operations import ConsoleCode, ConsoleSession
from db.support_actions import Actor, Deed
from domain.naming import digest

CODE_LIFETIME = timedelta(minutes=10)
LONGEST_SIGN_IN = timedelta(hours=8)
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's Base32: no two look alike
_LENGTH = 16  # characters, so 80 bits
_GROUP = 4
_MISREAD = str.maketrans({"O": "0", "I": "1", "L": "1"})


def code_from(randomness: bytes) -> str:
    """Write 10 random bytes as a code that a person can type."""
    number = int.from_bytes(randomness)
    letters = "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))
    return "-".join(letters[start : start + _GROUP] for start in range(0, _LENGTH, _GROUP))


def read_code(typed: str) -> str | None:
    """Read a code however it was typed; None for what cannot be one."""
    letters = "".join(typed.upper().replace("-", " ").split()).translate(_MISREAD)
    return letters if len(letters) == _LENGTH and set(letters) <= set(_ALPHABET) else None


_SUBJECT = "console_session"
_WHO = (ConsoleSession.user_id, func.coalesce(ConsoleSession.by_person, True))


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody who is signed in."""

    actor: Actor
    csrf_token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Opened:
    """A new sign-in; only the browser has its value."""

    value: str = field(repr=False)
    seconds: int  # that it lasts


async def open_for(db: AsyncSession, actor: Actor, way: str, until: datetime | None = None) -> Opened:
    """Sign somebody in for some hours, at most until an instant, and record it; `way` says how."""
    value = secrets.token_urlsafe(32)
    values = {
        "digest": digest(value),
        "user_id": actor.name,
        "by_person": actor.is_person,
        "csrf_token": secrets.token_urlsafe(32),
        "expires_at": func.least(func.clock_timestamp() + LONGEST_SIGN_IN, until),
    }
    lasts = func.extract("epoch", ConsoleSession.expires_at - func.clock_timestamp())
    seconds = (await db.execute(insert(ConsoleSession).values(values).returning(lasts))).scalar_one()
    await support_actions.note(db, Deed(actor, "sign_in", _SUBJECT), {_name(value): {"way": way}})
    return Opened(value, int(seconds))


async def of(db: AsyncSession, value: str) -> SignedIn | None:
    """Find who is signed in by a cookie's value."""
    query = select(*_WHO, ConsoleSession.csrf_token, ConsoleSession.expires_at).where(
        ConsoleSession.digest == digest(value), ConsoleSession.expires_at > func.clock_timestamp()
    )
    row = (await db.execute(query)).one_or_none()
    if row is None:
        return None
    name, is_person, csrf_token, expires_at = row
    return SignedIn(Actor(name, is_person), csrf_token, expires_at)


async def close(db: AsyncSession, value: str) -> None:
    """Sign out, and record it."""
    ended = delete(ConsoleSession).where(ConsoleSession.digest == digest(value)).returning(*_WHO)
    row = (await db.execute(ended)).one_or_none()
    if row is not None:
        await support_actions.note(db, Deed(Actor(*row), "sign_out", _SUBJECT), {_name(value): {}})


def _name(value: str) -> UUID:
    """Name a sign-in for the record, so that its reader cannot sign in with it."""
    return UUID(bytes=digest(value)[:16])


async def issue(db: AsyncSession, actor: Actor, lifetime: timedelta) -> str:
    """Make a code for somebody."""
    code = code_from(secrets.token_bytes(10))
    values = {"digest": _digest(code), "user_id": actor.name, "by_person": actor.is_person}
    await db.execute(insert(ConsoleCode).values(expires_at=func.clock_timestamp() + lifetime, **values))
    return code


async def redeem(db: AsyncSession, typed: str) -> Actor | None:
    """Use a code up and say whom it signs in; None if there is no such code, or it has expired."""
    taken = delete(ConsoleCode).where(
        ConsoleCode.digest == _digest(typed), ConsoleCode.expires_at > func.clock_timestamp()
    )
    who = taken.returning(ConsoleCode.user_id, func.coalesce(ConsoleCode.by_person, True))
    row = (await db.execute(who)).one_or_none()
    return Actor(*row) if row else None


def _digest(typed: str) -> bytes:
    return digest(read_code(typed) or "")
