"""Batches: many callers ask one by one, the database is asked once for all of them."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


class Batch(Generic[Ask, Answer]):
    """Gathers what is asked while earlier batches are under way.

    `run` gets up to `most` asks and returns as many answers in the same order; if it raises, all of them get its
    exception. At most `in_flight` batches run at a time.
    """

    def __init__(
        self, run: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer]]], *, most: int = 200, in_flight: int = 3
    ) -> None:
        self._run = run
        self._most = most
        self._free = in_flight
        self._waiting: deque[tuple[Ask, asyncio.Future[Answer]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._nobodys = contextvars.Context()  # so that no batch logs in the name of whoever asked first

    async def ask(self, ask: Ask) -> Answer:
        """Join the next batch; returns its answer for this ask."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((ask, future))
        if self._free:
            loop.call_soon(self._start, context=self._nobodys)  # everyone who asks in this turn of the loop comes along
        return await future

    def _start(self) -> None:
        while self._free and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [(ask, future) for ask, future in batch if not future.done()]  # gave up meanwhile
            if not batch:
                continue
            self._free -= 1
            task = asyncio.create_task(self._answer(batch))
            self._running.add(task)
            task.add_done_callback(self._finished)

    async def _answer(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._run([ask for ask, _ in batch])
        except Exception as error:  # noqa: BLE001 -- whatever it is, those who wait have to hear it
            if len(batch) > 1:  # one ask may be to blame: the others must not suffer for it
                middle = len(batch) // 2
                await self._answer(batch[:middle])
                await self._answer(batch[middle:])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free += 1
        self._start()
