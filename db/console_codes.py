"""One-time codes that sign somebody in to the console; the code itself is nowhere."""

import secrets
from datetime import timedelta

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.digests import digest
from db.models import ConsoleCode
from domain.console import code_from, read_code

_BLIND = {"synchronize_session": False}


async def issue(db: AsyncSession, user_id: str, lifetime: timedelta) -> str:
    """Make a code for somebody."""
    code = code_from(secrets.token_bytes(10))
    old = (
        select(ConsoleCode.digest)
        .where(ConsoleCode.expires_at < func.clock_timestamp())
        .with_for_update(skip_locked=True)
    )
    await db.execute(delete(ConsoleCode).where(ConsoleCode.digest.in_(old.scalar_subquery())), execution_options=_BLIND)
    values = {"digest": _digest(code), "user_id": user_id, "expires_at": func.clock_timestamp() + lifetime}
    await db.execute(insert(ConsoleCode).values(values))
    return code


async def redeem(db: AsyncSession, typed: str) -> str | None:
    """Use a code up and say whom it signs in; None where there is no such code, or not any more."""
    taken = delete(ConsoleCode).where(
        ConsoleCode.digest == _digest(typed), ConsoleCode.expires_at > func.clock_timestamp()
    )
    user_id: str | None = await db.scalar(
        taken.returning(ConsoleCode.user_id), execution_options={"synchronize_session": False}
    )
    return user_id


def _digest(typed: str) -> bytes:
    return digest(read_code(typed) or "")
