"""Batches: many callers ask one by one; one statement answers all of them."""

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
WITHIN = 8.0  # seconds; after that an answer is too late for a call to a provider
LANES = 3  # parts of failed batches that run at a time, so that others still get a connection
_SINGLY = 16  # asks that are repeated one by one at once; more are cut into parts first
_STOPS_WITHIN = 1.0  # seconds
_LOOKS = (0.0, 0.1, 0.2)  # seconds before each look at which asks would wait for a lock


class Batch(Generic[Ask, Answer]):
    """Gathers asks while earlier batches run.

    - `run` gets up to `most` asks and returns as many answers in the same order. An exception among them is raised to
      its asker alone. At most `in_flight` batches run at a time.
    - If `run` raises and one ask may be the cause, the batch is repeated in parts, `LANES` at a time, and a part that
      fails again one by one.
    - If the cause is a lock, `unheld` says which asks would wait for none. These are repeated together, so that stuck
      rows cost the others one wait. Asks that stay stuck get the error.
    - No asker and no later batch waits for a batch longer than `within` seconds. A later answer, or one to a cancelled
      asker, goes to `unheard`.
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
        self._gave_up = 0  # askers who gave up lately, and may still be waiting
        self._is_starting = False
        self._asked: deque[tuple[float, asyncio.Future[Answer]]] = deque()  # the oldest first, with its deadline
        self._deadline: asyncio.TimerHandle | None = None  # one for all: a timer for each costs more than the rest
        self._running: set[asyncio.Task[None]] = set()
        self._no_context = contextvars.Context()  # so that no batch logs in the name of its first asker

    async def ask(self, ask: Ask) -> Answer:
        """Join the next batch; returns its answer for this ask."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((ask, future))
        if self._free and not self._is_starting:
            self._is_starting = True
            loop.call_soon(self._start, context=self._no_context)  # all asks of this turn of the loop join
        return await self._answer_of(future)

    async def ask_alone(self, ask: Ask) -> Answer:
        """Ask alone: for what has failed a batch before."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._ask_in_parts([(ask, future)], 1)
        return await self._answer_of(future)

    async def stop(self) -> None:
        """Cancel what runs, and wait until its connections are free."""
        running = set(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_STOPS_WITHIN)

    async def _answer_of(self, future: asyncio.Future[Answer]) -> Answer:
        loop = asyncio.get_running_loop()
        self._asked.append((loop.time() + self._within, future))
        if self._deadline is None:
            self._deadline = loop.call_later(self._within, self._expire, context=self._no_context)
        try:
            return await future
        except BaseException:
            self._gave_up += 1
            if self._gave_up > self._most and self._gave_up > len(self._waiting) / 2:
                self._gave_up, self._waiting = 0, deque(each for each in self._waiting if not each[1].done())
            if future.done() and not future.cancelled() and future.exception() is None:
                self._drop(future.result())  # it arrived just as we gave up
            raise

    def _expire(self) -> None:
        """Answer those who have waited too long, and come back for the next one."""
        loop = asyncio.get_running_loop()
        while self._asked and (self._asked[0][0] <= loop.time() or self._asked[0][1].done()):
            _, future = self._asked.popleft()
            if not future.done():
                future.set_exception(TimeoutError())
        self._deadline = None
        if self._asked:
            self._deadline = loop.call_at(self._asked[0][0], self._expire, context=self._no_context)

    def _start(self) -> None:
        self._is_starting = False
        while self._free and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [(ask, future) for ask, future in batch if not future.done()]  # gave up meanwhile
            if not batch:
                continue
            self._free -= 1
            self._keep(self._in_turn(batch))

    def _keep(self, running: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_awaited(running), context=self._no_context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _in_turn(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        await asyncio.wait({self._keep(self._answer(batch))}, timeout=self._within)  # no asker waits longer
        self._free += 1
        self._start()

    async def _answer(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]], *, again: bool = False) -> None:
        try:
            answers = await self._run([ask for ask, _ in batch])
            pairs = list(zip(batch, answers, strict=True))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the askers have to get it
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
            self._answer_one(future, answer)
        while self._asked and self._asked[0][1].done():  # else each answer would be kept until its deadline
            self._asked.popleft()

    async def _answer_around(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]], error: Exception) -> None:
        """Repeat, together, the asks that wait for no lock; those that wait for one at every look get the error."""
        for wait in _LOOKS:
            await asyncio.sleep(wait)
            batch = [each for each in batch if not each[1].done()]
            async with self._lanes:
                try:
                    free = await self._may_go([ask for ask, _ in batch])
                except Exception:  # noqa: BLE001 -- asking in parts finds the cause
                    self._ask_in_parts(batch, 1 if len(batch) <= _SINGLY else isqrt(len(batch)))
                    return
                if going := [each for each, is_free in zip(batch, free, strict=True) if is_free]:
                    await asyncio.wait({self._keep(self._answer(going, again=True))}, timeout=self._within)
            batch = [each for each, is_free in zip(batch, free, strict=True) if not is_free]
        for _, future in batch:
            self._answer_one(future, error)

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

    def _answer_one(self, future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
        if isinstance(answer, Exception):
            if not future.done():
                future.set_exception(answer)
        elif future.done():
            self._drop(answer)
        else:
            future.set_result(answer)

    def _drop(self, answer: Answer) -> None:
        if self._unheard is not None:
            self._unheard(answer)


async def _awaited(running: Awaitable[None]) -> None:
    await running


async def unheld(db: AsyncSession, task_ids: Collection[UUID]) -> set[UUID]:
    """Give those of these tasks whose row is not locked. Waits for no lock."""
    return set(await db.scalars(_UNHELD, {"task_ids": list(task_ids)}))


async def unheld_around(db: AsyncSession, task_ids: Collection[UUID]) -> set[UUID]:
    """Give those whose fast, membership, device token and log head are not locked either. Waits for no lock.

    Hundreds of tasks of one person may wait for one of their rows.
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
