"""Fasts as tests store them without the API, as by a process that dies at once."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from db import fasting_sessions, outbox
from domain.fasts import FastingSession, needed_at


async def start(db: AsyncSession, session: FastingSession) -> None:
    """Store a new session, and its row of the outbox."""
    stored, _ = await fasting_sessions.start_all(db, [(session, {})], _owed(None, session, session.scheduled_at))
    assert stored == {session.session_id}


async def change(db: AsyncSession, session: FastingSession, now: datetime) -> None:
    """Store a changed session, and its row of the outbox."""
    before = (await fasting_sessions.hold(db, [session.session_id])).fasts[session.session_id].session
    await fasting_sessions.change_all(db, [session])
    await outbox.add_all(db, fasting_sessions.OUTBOX_KIND, _owed(before, session, now))


def _owed(before: FastingSession | None, after: FastingSession, now: datetime) -> list[outbox.PlannedDispatch]:
    return outbox.planned_dispatches({after.session_id: needed_at(before, after, now)}, now)
