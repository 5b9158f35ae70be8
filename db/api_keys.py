"""API keys: what a backend shows instead of a JWT. The text of a key is shown once; only its digest is stored."""

import re
import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import support_actions
from db.engine import present_instant
from db.models.operations import ApiKeyRow, ConsoleSession
from db.support_actions import Actor, Deed
from domain.naming import digest
from domain.problems import NotFound

PREFIX = "fbk_"
_FORM = re.compile(r"fbk_[A-Za-z0-9_-]{43}", re.ASCII)
_SUBJECT = "api_key"


class KeyState(StrEnum):
    """Whether a key is accepted."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key, without its text."""

    key_id: UUID
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None  # up to a minute old
    state: KeyState


def digest_of(key: str) -> bytes | None:
    """Give the digest that a key is stored under; None for a text that cannot be a key."""
    return digest(key) if _FORM.fullmatch(key) else None


async def create(db: AsyncSession, name: str, scopes: Sequence[str], *, lasts: timedelta | None, actor: Actor) -> str:
    """Store a new key and give its text, which nobody can read again; `lasts` None: until it is revoked."""
    key = PREFIX + secrets.token_urlsafe(32)
    values = {
        "name": name,
        "digest": digest(key),
        "scopes": sorted(set(scopes)),
        "expires_at": None if lasts is None else await present_instant(db) + lasts,
    }
    key_id = (await db.execute(insert(ApiKeyRow).values(values).returning(ApiKeyRow.id))).scalar_one()
    await support_actions.note(db, Deed(actor, "create_api_key", _SUBJECT), {key_id: {"name": name}})
    return key


async def all_keys(db: AsyncSession) -> list[ApiKey]:
    """List every key, the newest first."""
    rows = await db.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id))
    now = await present_instant(db)
    return [_key(row, now) for row in rows]


async def revoke(db: AsyncSession, which: str, *, actor: Actor) -> list[ApiKey]:
    """Revoke the key with this id, or all keys of this name; gives them. Raises NotFound.

    API processes notice within seconds; who signed in to the console with one is signed out. Repeats are harmless.
    """
    named = ApiKeyRow.name == which
    with suppress(ValueError):
        named = or_(named, ApiKeyRow.id == UUID(which))
    rows = (await db.scalars(select(ApiKeyRow).where(named).order_by(ApiKeyRow.id).with_for_update())).all()
    if not rows:
        raise NotFound("API key")
    now = await present_instant(db)
    valid = [row for row in rows if row.revoked_at is None]
    for row in valid:
        row.revoked_at = now
    await db.flush()
    signed_in = delete(ConsoleSession).where(
        ConsoleSession.user_id.in_({row.name for row in valid}), ConsoleSession.by_person.is_(False)
    )
    await db.execute(signed_in)
    deed = Deed(actor, "revoke_api_key", _SUBJECT)
    await support_actions.note(db, deed, {row.id: {"name": row.name} for row in valid})
    return [_key(row, now) for row in rows]


async def used(db: AsyncSession, digests: Collection[bytes]) -> dict[bytes, ApiKey]:
    """Read the keys with these digests, and record that they were used, at most once a minute. Waits for no lock."""
    rows = (await db.execute(_USED, {"digests": list(digests)})).all()
    return {row.digest: _key(row, row.now) for row in rows}


def _key(row: Any, now: datetime) -> ApiKey:  # noqa: ANN401 -- a row of the table, or of a query with its columns
    if row.revoked_at is not None:
        state = KeyState.REVOKED
    else:
        state = KeyState.EXPIRED if row.expires_at is not None and row.expires_at <= now else KeyState.ACTIVE
    times = (row.created_at, row.expires_at, row.revoked_at, row.last_used_at)
    return ApiKey(row.id, row.name, tuple(row.scopes), *times, state)


_USED = text("""
    WITH in_use AS (
        SELECT id FROM api_keys
         WHERE digest = ANY(CAST(:digests AS bytea[])) AND revoked_at IS NULL
           AND (expires_at IS NULL OR expires_at > statement_timestamp())
           AND (last_used_at IS NULL OR last_used_at <= statement_timestamp() - interval '1 minute')
           FOR UPDATE SKIP LOCKED
    ), noted AS (
        UPDATE api_keys k SET last_used_at = statement_timestamp() FROM in_use WHERE k.id = in_use.id
    )
    SELECT digest, id, name, scopes, created_at, expires_at, revoked_at, last_used_at, statement_timestamp() AS now
      FROM api_keys WHERE digest = ANY(CAST(:digests AS bytea[]))
""")
