"""Links to the preference page, each for one use, and the sessions that they open; stored as digests only."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models.operations import PreferenceCode, PreferenceSession
from db.unreadable import word
from domain.naming import digest


class LinkFor(StrEnum):
    """Where a link is opened."""

    APP = "app"  # in a browser of the app, at once; opening it uses it up
    EMAIL = "email"  # in a mail, at any time; since mail scanners open links, only a button uses it up


LIFETIMES: Mapping[LinkFor, timedelta] = {LinkFor.APP: timedelta(minutes=15), LinkFor.EMAIL: timedelta(days=30)}

MAX_LINKS = 10  # of each kind per person; the oldest is deleted
MAX_SESSIONS = 10  # browsers per person in which the page is open; the oldest is closed
SESSION_LIFETIME = timedelta(hours=1)  # after the last visit
LONGEST_SESSION = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class MadeLink:
    """A new link; its code is not stored."""

    code: str = field(repr=False)  # 43 characters: letters, digits, - and _
    expires_at: datetime


async def make(db: AsyncSession, user_id: str, kind: LinkFor) -> MadeLink:
    """Make a link for somebody; beyond the limit of its kind the oldest are deleted."""
    code = secrets.token_urlsafe(32)
    values = {
        "digest": digest(code),
        "user_id": user_id,
        "kind": kind,
        "expires_at": func.clock_timestamp() + LIFETIMES[kind],
    }
    added = insert(PreferenceCode).values(values).returning(PreferenceCode.expires_at)
    expires_at = (await db.execute(added)).scalar_one()
    too_many = (
        select(PreferenceCode.digest)
        .where(PreferenceCode.user_id == user_id, PreferenceCode.kind == kind)
        .order_by(PreferenceCode.created_at.desc(), PreferenceCode.digest)
        .offset(MAX_LINKS)
    )
    removal = delete(PreferenceCode).where(PreferenceCode.digest.in_(too_many.scalar_subquery()))
    await db.execute(removal)
    return MadeLink(code, expires_at)


async def kind_of(db: AsyncSession, code: str) -> LinkFor | None:
    """Say what a link is for; None if there is no such link, or it has expired."""
    query = select(PreferenceCode.kind).where(
        PreferenceCode.digest == digest(code), PreferenceCode.expires_at > func.clock_timestamp()
    )
    kind = await db.scalar(query)
    return None if kind is None else word(LinkFor, kind, "preference_codes.kind")


async def redeem(db: AsyncSession, code: str, kinds: Collection[LinkFor]) -> str | None:
    """Use up a link of one of these kinds and say whose it is; None if there is none, or it has expired."""
    taken = delete(PreferenceCode).where(
        PreferenceCode.digest == digest(code),
        PreferenceCode.kind.in_(kinds),
        PreferenceCode.expires_at > func.clock_timestamp(),
    )
    user_id: str | None = await db.scalar(taken.returning(PreferenceCode.user_id))
    return user_id


_EXTENDED_AFTER = SESSION_LIFETIME / 12  # so that few visits write


@dataclass(frozen=True, slots=True)
class OpenPage:
    """A browser that shows somebody's preferences."""

    user_id: str
    csrf_token: str = field(repr=False)


async def open_for(db: AsyncSession, user_id: str, instead_of: str | None) -> str:
    """Open somebody's page and give the cookie's value, which is not stored here.

    `instead_of`: the cookie's value that the browser had before; its page is closed. Beyond the limit of browsers the
    oldest pages are closed.
    """
    if instead_of is not None:
        await close(db, instead_of)
    value = secrets.token_urlsafe(32)
    values = {
        "digest": digest(value),
        "user_id": user_id,
        "csrf_token": secrets.token_urlsafe(32),
        "expires_at": func.clock_timestamp() + SESSION_LIFETIME,
    }
    await db.execute(insert(PreferenceSession).values(values))
    too_many = (
        select(PreferenceSession.digest)
        .where(PreferenceSession.user_id == user_id)
        .order_by(PreferenceSession.created_at.desc(), PreferenceSession.digest)
        .offset(MAX_SESSIONS)
    )
    await _delete(db, PreferenceSession.digest.in_(too_many.scalar_subquery()))
    return value


async def of(db: AsyncSession, value: str) -> OpenPage | None:
    """Find whose page a cookie's value opens, and extend it."""
    mine, now = PreferenceSession.digest == digest(value), func.clock_timestamp()
    longest = PreferenceSession.created_at + LONGEST_SESSION
    query = select(
        PreferenceSession.user_id,
        PreferenceSession.csrf_token,
        func.least(now + SESSION_LIFETIME, longest) > PreferenceSession.expires_at + _EXTENDED_AFTER,
    ).where(mine, PreferenceSession.expires_at > now)
    row = (await db.execute(query)).one_or_none()
    if row is None:
        return None
    user_id, csrf_token, is_extended = row
    if is_extended:
        extended = update(PreferenceSession).where(mine).values(expires_at=func.least(now + SESSION_LIFETIME, longest))
        await db.execute(extended)
    return OpenPage(user_id, csrf_token)


async def close(db: AsyncSession, value: str) -> None:
    """Close a page, so that its cookie is no longer valid."""
    await _delete(db, PreferenceSession.digest == digest(value))


async def _delete(db: AsyncSession, which: ColumnElement[bool]) -> None:
    await db.execute(delete(PreferenceSession).where(which))
