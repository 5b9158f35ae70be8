"""Batches: many callers ask one by one, the database is asked once for all of them."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from math import isqrt
from typing import Generic, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import is_contended, may_be_ones_fault

Ask = TypeVar("Ask")

Answer = TypeVar("Answer")


WITHIN = 8.0  # seconds; an answer that takes longer is of no use to anybody who calls providers

LANES = 3  # parts of failed batches under way at a time, so that others still get a connection

_SINGLY = 16  # asks that are asked one by one at once; more are cut into parts first

_LOOKS = (0.0, 0.1, 0.2)  # seconds before each look at who has to wait for a lock


class Batch(Generic[Ask, Answer]):
    """Gathers what is asked while earlier batches are under way.

    `run` gets up to `most` asks and returns as many answers in the same order; an exception among them is raised to
    its asker alone. At most `in_flight` batches run at a time. Where `run` raises and one ask may be to blame, the
    batch is asked again in parts, all at once but for `LANES`, and what fails once more singly. Where it is a lock that
    did not come, and `unheld` can say who waits for none, those are asked again together, however many wait: stuck
    rows cost the others one wait for a lock, and who stays stuck is told so. Nobody, and no batch after it, waits for
    one longer than `within` seconds; an answer that comes later, or to somebody who was cancelled, goes to `unheard`.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer | Exception]]],
        *,
        most: int = 200,
        in_flight: int = 3,
        within: float = WITHIN,
        unheard: Callable[[Answer], None] | None = None,
        unheld: Callable[[Sequence[Ask]], Awaitable[Sequence[bool]]] | None = None,
    ) -> None:
        self._run = run
        self._most = most
        self._free = in_flight
        self._within = within
        self._unheard = unheard
        self._unheld = unheld
        self._lanes = asyncio.Semaphore(LANES)
        self._waiting: deque[tuple[Ask, asyncio.Future[Answer]]] = deque()
        self._left = 0  # who gave up lately, and may still stand in line
        self._running: set[asyncio.Task[None]] = set()
        self._nobodys = contextvars.Context()  # so that no batch logs in the name of whoever asked first

    async def ask(self, ask: Ask) -> Answer:
        """Join the next batch; returns its answer for this ask."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((ask, future))
        if self._free:
            loop.call_soon(self._start, context=self._nobodys)  # everyone who asks in this turn of the loop comes along
        return await self._heard(future)

    async def ask_alone(self, ask: Ask) -> Answer:
        """Ask in no company: for what has spoilt a batch before."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._ask_in_parts([(ask, future)], 1)
        return await self._heard(future)

    async def _heard(self, future: asyncio.Future[Answer]) -> Answer:
        try:
            async with asyncio.timeout(self._within):
                return await future
        except BaseException:
            self._left += 1
            if self._left > self._most and self._left > len(self._waiting) / 2:
                self._left, self._waiting = 0, deque(each for each in self._waiting if not each[1].done())
            if future.done() and not future.cancelled() and future.exception() is None:
                self._tell_nobody(future.result())  # it came at the very moment we gave up
            raise

    def _start(self) -> None:
        while self._free and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [(ask, future) for ask, future in batch if not future.done()]  # gave up meanwhile
            if not batch:
                continue
            self._free -= 1
            self._keep(self._in_turn(batch))

    def _keep(self, running: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_awaited(running), context=self._nobodys)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _in_turn(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        await asyncio.wait({self._keep(self._answer(batch))}, timeout=self._within)  # nobody waits for it any longer
        self._free += 1
        self._start()

    async def _answer(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]], *, again: bool = False) -> None:
        try:
            answers = await self._run([ask for ask, _ in batch])
            pairs = list(zip(batch, answers, strict=True))
        except Exception as error:  # noqa: BLE001 -- whatever it is, those who wait have to hear it
            if len(batch) > 1 and may_be_ones_fault(error):
                is_held = isinstance(error, DBAPIError) and is_contended(error)
                if self._unheld and is_held and not again:
                    self._keep(self._answer_around(batch, error))
                else:
                    self._ask_in_parts(batch, 1 if len(batch) <= _SINGLY else isqrt(len(batch)))
                return
            pairs = [(one, error) for one in batch]
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), answer in pairs:
            self._tell(future, answer)

    async def _answer_around(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]], error: Exception) -> None:
        """Ask again, together, for all who wait for no lock; whoever waits for one at every look is told the error."""
        for wait in _LOOKS:
            await asyncio.sleep(wait)
            batch = [each for each in batch if not each[1].done()]
            async with self._lanes:
                try:
                    free = await self._may_go([ask for ask, _ in batch])
                except Exception:  # noqa: BLE001 -- whatever ails it, asking in parts tells them
                    self._ask_in_parts(batch, 1 if len(batch) <= _SINGLY else isqrt(len(batch)))
                    return
                if going := [each for each, is_free in zip(batch, free, strict=True) if is_free]:
                    await asyncio.wait({self._keep(self._answer(going, again=True))}, timeout=self._within)
            batch = [each for each, is_free in zip(batch, free, strict=True) if not is_free]
        for _, future in batch:
            self._tell(future, error)

    async def _may_go(self, asks: Sequence[Ask]) -> Sequence[bool]:
        assert self._unheld is not None
        async with asyncio.timeout(self._within):
            return await self._unheld(asks) if asks else ()

    def _ask_in_parts(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]], size: int) -> None:
        for start in range(0, len(batch), size):
            self._keep(self._in_a_lane(batch[start : start + size]))

    async def _in_a_lane(self, part: Sequence[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        async with self._lanes:
            if waiting := [(ask, future) for ask, future in part if not future.done()]:
                await asyncio.wait({self._keep(self._answer(waiting))}, timeout=self._within)

    def _tell(self, future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
        if isinstance(answer, Exception):
            if not future.done():
                future.set_exception(answer)
        elif future.done():
            self._tell_nobody(answer)
        else:
            future.set_result(answer)

    def _tell_nobody(self, answer: Answer) -> None:
        if self._unheard is not None:
            self._unheard(answer)


async def _awaited(running: Awaitable[None]) -> None:
    await running


async def unheld(db: AsyncSession, task_ids: Collection[UUID]) -> set[UUID]:
    """Give those of these tasks whose row nobody holds. Waits for no lock."""
    return set(await db.scalars(_UNHELD, {"task_ids": list(task_ids)}))


async def unheld_around(db: AsyncSession, task_ids: Collection[UUID]) -> set[UUID]:
    """Give those of which nobody holds the fast, membership, device token or log's head either. Waits for no lock.

    One row of one person may be what hundreds of their tasks wait for.
    """
    return set(await db.scalars(_UNHELD_AROUND, {"task_ids": list(task_ids)}))


_UNHELD = text("""
    SELECT task_id FROM push_tasks WHERE task_id = ANY(CAST(:task_ids AS uuid[])) FOR UPDATE SKIP LOCKED
""")


_UNHELD_AROUND = text("""
    WITH tasks AS MATERIALIZED (
        SELECT task_id, conversation_id, installation_id, user_id FROM push_tasks
         WHERE task_id = ANY(CAST(:task_ids AS uuid[])) FOR UPDATE SKIP LOCKED
    ), fasts AS MATERIALIZED (
        SELECT id FROM fasting_sessions
         WHERE id IN (SELECT conversation_id FROM tasks) FOR SHARE SKIP LOCKED
    ), memberships AS MATERIALIZED (
        SELECT conversation_id, user_id FROM members
         WHERE (conversation_id, user_id) IN (SELECT conversation_id, user_id FROM tasks) FOR SHARE SKIP LOCKED
    ), tokens AS MATERIALIZED (
        SELECT installation_id FROM device_tokens
         WHERE active AND installation_id IN (SELECT installation_id FROM tasks) FOR SHARE SKIP LOCKED
    ), heads AS MATERIALIZED (
        SELECT user_id FROM log_heads
         WHERE user_id IN (SELECT user_id FROM tasks) FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT task_id FROM tasks t
     WHERE (conversation_id IN (SELECT id FROM fasts)
            OR NOT EXISTS (SELECT FROM fasting_sessions s WHERE s.id = t.conversation_id))
       AND ((conversation_id, user_id) IN (SELECT conversation_id, user_id FROM memberships)
            OR NOT EXISTS (SELECT FROM members m
                            WHERE m.conversation_id = t.conversation_id AND m.user_id = t.user_id))
       AND (installation_id IN (SELECT installation_id FROM tokens)
            OR NOT EXISTS (SELECT FROM device_tokens d WHERE d.active AND d.installation_id = t.installation_id))
       AND (user_id IN (SELECT user_id FROM heads)
            OR NOT EXISTS (SELECT FROM log_heads h WHERE h.user_id = t.user_id))
""")
