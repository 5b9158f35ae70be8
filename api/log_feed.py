"""Reads the logs for all streams of this process: few statements, however many ask; an outage is waited out."""

import asyncio
import random
from collections.abc import Sequence

import structlog
from sqlalchemy.exc import DBAPIError

from activities.batch import Batch
from db import log as logs
from db.engine import UNREACHABLE, Sessions, is_ready, refused_for_its_content
from db.messages import PageSize

PAGE = PageSize(items=10, bytes=32 * 1024)  # what a stream holds at most, beside the last item
_STREAMS_AT_ONCE = 50  # in one statement
_STATEMENTS = 2  # at a time
_OUTAGE: tuple[type[Exception], ...] = (*UNREACHABLE, DBAPIError)

log = structlog.get_logger()


class LogFeed:
    """Holds no connection while nobody asks. While the database is away one looks for it, and all others wait."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._batch = Batch(self._read, most=_STREAMS_AT_ONCE, in_flight=_STATEMENTS)
        self._well = asyncio.Event()
        self._well.set()
        self._recovery: asyncio.Task[None] | None = None

    async def page_after(self, user_id: str, seq: int) -> logs.LogPage:
        """Read at most a page of a log after a sequence number, as soon as the database can be asked."""
        while True:
            await self._well.wait()
            page = await self._batch.ask((user_id, seq))
            if page is not None:
                return page

    def close(self) -> None:
        """Look for the database no longer."""
        if self._recovery is not None:
            self._recovery.cancel()

    async def _read(self, asked: Sequence[tuple[str, int]]) -> Sequence[logs.LogPage | None]:
        if self._well.is_set():
            try:
                async with self._sessions() as db:
                    return await logs.pages_after(db, asked, PAGE)
            except _OUTAGE as error:
                if refused_for_its_content(error):
                    raise  # then each is asked for alone
                log.warning("streams not fed", streams=len(asked), error=type(error).__name__)
                self._fall_ill()
        return [None] * len(asked)

    def _fall_ill(self) -> None:
        if self._well.is_set():
            self._well.clear()
            self._recovery = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        is_well = False
        while not is_well:
            await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311
            is_well = await is_ready(self._sessions)
        self._well.set()
