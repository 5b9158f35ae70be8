"""Links to the preference page. Only their digests are kept, so nobody who reads the database can follow one."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.digests import digest
from db.models import PreferenceCode
from db.unreadable import word
from domain.preference_links import LIFETIMES, MOST_LINKS, LinkFor


@dataclass(frozen=True, slots=True)
class MadeLink:
    """A new link; its code is nowhere else."""

    code: str = field(repr=False)  # 43 characters: letters, digits, - and _
    expires_at: datetime


async def make(db: AsyncSession, user_id: str, kind: LinkFor) -> MadeLink:
    """Make a link for somebody; of those of its kind that they have too many, the oldest go."""
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
        .offset(MOST_LINKS)
    )
    gone = delete(PreferenceCode).where(PreferenceCode.digest.in_(too_many.scalar_subquery()))
    await db.execute(gone, execution_options={"synchronize_session": False})
    return MadeLink(code, expires_at)


async def kind_of(db: AsyncSession, code: str) -> LinkFor | None:
    """Say what a link is for; None where there is no such link, or not any more."""
    query = select(PreferenceCode.kind).where(
        PreferenceCode.digest == digest(code), PreferenceCode.expires_at > func.clock_timestamp()
    )
    kind = await db.scalar(query)
    return None if kind is None else word(LinkFor, kind, "preference_codes.kind")


async def redeem(db: AsyncSession, code: str, kinds: Collection[LinkFor]) -> str | None:
    """Use a link of one of these kinds up and say whose it is; None where there is no such link, or not any more."""
    taken = delete(PreferenceCode).where(
        PreferenceCode.digest == digest(code),
        PreferenceCode.kind.in_(kinds),
        PreferenceCode.expires_at > func.clock_timestamp(),
    )
    user_id: str | None = await db.scalar(
        taken.returning(PreferenceCode.user_id), execution_options={"synchronize_session": False}
    )
    return user_id
