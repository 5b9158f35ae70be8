"""A person leaves: their pushes stop with the request, their rows go in batches that let others through."""

import asyncio
import time
from datetime import timedelta

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from db import device_tokens, erasures
from db.engine import Sessions, is_contended, present_instant, wait_briefly_for_locks
from db.erasures import Erasing, Erasure, Whose
from domain.naming import keyed_digest

SIGNED_OUT_BY = "being_erased"  # the reason of an event of a device token
_OTHERS_END_WITHIN = 1.0  # seconds; longer than transactions last, unless one is stuck
_LOOK_EVERY = 0.02  # seconds


async def request(db: AsyncSession, user_id: str, key: bytes | None) -> Erasure:
    """Begin to erase a person, or go on: no push to them starts after the commit, and no write of theirs is taken.

    Signing out waits for calls that are just being begun, and for registrations, so none of them comes later.
    """
    await device_tokens.hold_registrations(db, user_id)
    running = await erasures.running(db, user_id)
    if running is not None:
        return running
    begun = await erasures.add(db, user_id, keyed_digest(user_id, key))
    await device_tokens.sign_out_everywhere(db, user_id, SIGNED_OUT_BY)
    return begun


async def erase_rows(sessions: Sessions, subject: Erasing, call_lasts: timedelta, *, within: float) -> bool:
    """Delete a person's rows for so many seconds; tells whether none is left.

    First it waits for the transactions that do not know of the erasure. Each batch is followed by a pause as long as
    itself, so that others get the database.
    """
    until = time.monotonic() + within
    if not await others_have_ended(sessions):
        return False
    whose = Whose(subject.id, subject.user_id, call_lasts)
    for batch in erasures.BATCHES:
        is_full = True
        while is_full:
            began = time.monotonic()
            if began > until:
                return False
            try:
                async with sessions.begin() as db:
                    await wait_briefly_for_locks(db)
                    is_full = await batch(db, whose)
            except DBAPIError as error:
                if not is_contended(error):
                    raise
                return False
            if is_full:
                await asyncio.sleep(time.monotonic() - began)
    async with sessions() as db:
        return not await erasures.is_left(db, whose)


async def others_have_ended(sessions: Sessions) -> bool:
    """Wait until the transactions have ended that are open now; tells whether they did so in time."""
    until = time.monotonic() + _OTHERS_END_WITHIN
    async with sessions() as db:
        at = await present_instant(db)
    while True:
        async with sessions() as db:
            if not await erasures.is_anyone_older(db, at):
                return True
        if time.monotonic() > until:
            return False
        await asyncio.sleep(_LOOK_EVERY)
