"""In which browsers the preference page is open, and whose. The cookie's value is known by its digest alone."""

import secrets
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.digests import digest
from db.models import PreferenceSession
from domain.preference_links import LONGEST_SESSION, MOST_SESSIONS, SESSION_LIFETIME

_PUT_OFF_AFTER = SESSION_LIFETIME / 12  # so that few visits write


@dataclass(frozen=True, slots=True)
class OpenPage:
    """A browser that shows somebody's preferences."""

    user_id: str
    csrf_token: str = field(repr=False)


async def open_for(db: AsyncSession, user_id: str, instead_of: str | None) -> str:
    """Open somebody's page and give the cookie's value, which only the browser keeps.

    `instead_of`: the cookie's value that the browser had before, of whomever; it is of no use any more. Of pages that
    are open in too many browsers, the oldest are closed.
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
        .offset(MOST_SESSIONS)
    )
    await _delete(db, PreferenceSession.digest.in_(too_many.scalar_subquery()))
    return value


async def of(db: AsyncSession, value: str) -> OpenPage | None:
    """Find whose page a cookie's value opens, and let it be open for longer."""
    mine, now = PreferenceSession.digest == digest(value), func.clock_timestamp()
    longest = PreferenceSession.created_at + LONGEST_SESSION
    query = select(
        PreferenceSession.user_id,
        PreferenceSession.csrf_token,
        func.least(now + SESSION_LIFETIME, longest) > PreferenceSession.expires_at + _PUT_OFF_AFTER,
    ).where(mine, PreferenceSession.expires_at > now)
    row = (await db.execute(query)).one_or_none()
    if row is None:
        return None
    user_id, csrf_token, is_put_off = row
    if is_put_off:
        put_off = update(PreferenceSession).where(mine).values(expires_at=func.least(now + SESSION_LIFETIME, longest))
        await db.execute(put_off, execution_options={"synchronize_session": False})
    return OpenPage(user_id, csrf_token)


async def close(db: AsyncSession, value: str) -> None:
    """Close a page: its cookie is worth nothing any more."""
    await _delete(db, PreferenceSession.digest == digest(value))


async def _delete(db: AsyncSession, which: ColumnElement[bool]) -> None:
    await db.execute(delete(PreferenceSession).where(which), execution_options={"synchronize_session": False})
