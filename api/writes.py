"""Transactions that lock rows. Those that need the same row queue here, where waiting takes no database connection.

Starts of fasts that arrive together share one transaction, as the items of a batch do.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from api.http.problems import Detail, ServiceUnavailable
from db.batch import Batch
from db.engine import Sessions, is_contended, is_of_erased
from db.outbox import OutboxEntry
from dispatch.relay import Relay
from domain.problems import Quotas, being_erased
from operations import fasts
from operations.fasts import CarriedOut, Order

LOCK_TIMEOUT = 0.25  # seconds that a connection waits for a lock of another process
PATIENCE = 3.0  # seconds that a request waits for all its rows
MAX_WAITING = 200  # requests for one row
_PAUSE = (0.05, 0.25)  # seconds without a connection, before the next try
_OF_POOL, _OF_POOL_FOR_KIND = 0.8, 0.6  # shares of the pool; the rest is for reads and for other kinds of rows

T = TypeVar("T")
_MOST = 100  # starts in a transaction
_IN_FLIGHT = 2  # transactions: one is written while PostgreSQL commits the other


@dataclass(slots=True)
class _Queue:
    """The requests for one row, in the order of their arrival."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class Writes:
    """Runs transactions, one at a time for each row they name; rows are named `kind/id`."""

    def __init__(self, sessions: Sessions, pool_size: int, quotas: Quotas) -> None:
        self.quotas = quotas
        self._sessions = sessions
        self._queues: dict[str, _Queue] = {}
        self._places = asyncio.Semaphore(max(1, int(pool_size * _OF_POOL)))
        most_of_kind = max(1, int(pool_size * _OF_POOL_FOR_KIND))
        self._places_of_kind: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(most_of_kind))

    async def run(self, write: Callable[[AsyncSession], Awaitable[T]], *rows: str) -> T:
        """Run a transaction when it has its turn at all these rows; raises ServiceUnavailable after `PATIENCE`.

        Raises Conflict if it writes something of a person who is being erased.

        If another process holds one of them, the connection is given back and `write` is called again later. So `write`
        must change nothing but the database.
        """
        until = asyncio.get_running_loop().time() + PATIENCE
        async with AsyncExitStack() as turns:
            for row in sorted(set(rows)):
                await turns.enter_async_context(self._turn(row, until))
            while True:
                try:
                    async with self._place(rows[0].partition("/")[0], until), self._sessions.begin() as db:
                        return await write(db)
                except DBAPIError as error:
                    if is_of_erased(error):
                        raise being_erased() from None
                    if not is_contended(error):
                        raise
                    pause = random.uniform(*_PAUSE)  # noqa: S311 -- spreads load
                    if asyncio.get_running_loop().time() + pause > until:
                        raise _too_many() from error
                await asyncio.sleep(pause)

    async def at_once(self, kind: str, write: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run a transaction that waits for no row, once there is a connection for its kind."""
        until = asyncio.get_running_loop().time() + PATIENCE
        async with self._place(kind, until), self._sessions.begin() as db:
            return await write(db)

    @asynccontextmanager
    async def _turn(self, row: str, until: float) -> AsyncIterator[None]:
        queue = self._queues.setdefault(row, _Queue())
        if queue.wanted > MAX_WAITING:
            raise _too_many()
        queue.wanted += 1
        try:
            async with _held(queue.turn, until):
                yield
        finally:
            queue.wanted -= 1
            if not queue.wanted:
                del self._queues[row]

    @asynccontextmanager
    async def _place(self, kind: str, until: float) -> AsyncIterator[None]:
        async with _held(self._places_of_kind[kind], until), _held(self._places, until):
            yield


@asynccontextmanager
async def _held(lock: asyncio.Lock | asyncio.Semaphore, until: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(until):
            await lock.acquire()
    except TimeoutError:
        raise _too_many() from None
    try:
        yield
    finally:
        lock.release()


def _too_many() -> ServiceUnavailable:
    return ServiceUnavailable(Detail.TOO_MANY_WRITES)


@dataclass(frozen=True, slots=True)
class Started:
    """The fast that a start asked for, and what this process dispatches for it first."""

    carried_out: CarriedOut
    entry: OutboxEntry | None


class SharedStarts:
    """Carries out starts that wait for nothing, together. The caller dispatches, in the context of its request."""

    def __init__(self, writes: Writes, relay: Relay) -> None:
        self._writes = writes
        self._relay = relay
        self._batch = Batch(self._carry_out, most=_MOST, in_flight=_IN_FLIGHT, unheard=self._dispatch)

    async def start(self, order: Order) -> Started | None:
        """Start a fast; None if it has to wait for somebody else's transaction. Raises DomainError."""
        return await self._batch.ask(order)

    async def close(self) -> None:
        """Let go of connections: the process stops, and its requests have ended."""
        await self._batch.stop()

    async def _carry_out(self, orders: Sequence[Order]) -> Sequence[Started | Exception | None]:
        """Carry out what needs no lock of others. A caller that gets None tries alone."""
        most = self._writes.quotas.active_fasts
        write = partial(fasts.carry_out_free, orders=dict(enumerate(orders)), most=most)
        try:
            carried, entries = await self._writes.at_once("fasting-session", write)
        except ServiceUnavailable as error:
            return [error] * len(orders)
        except DBAPIError as error:
            if is_contended(error) or is_of_erased(error):
                return [None] * len(orders)
            raise
        own = {entry.subject_id: entry for entry in entries}
        answers: list[Started | Exception | None] = [None] * len(orders)
        for place, answer in carried.items():
            if isinstance(answer, CarriedOut):
                answers[place] = Started(answer, own.pop(answer.session.session_id, None))
            else:
                answers[place] = answer
        return answers

    def _dispatch(self, unheard: Started | None) -> None:
        """Dispatch a start whose client left meanwhile."""
        if unheard is not None and unheard.entry is not None:
            self._relay.dispatch_soon(unheard.entry)
