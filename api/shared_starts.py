"""Starts of fasts that arrive together share one transaction, as the items of a batch do."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.exc import DBAPIError

from api.http.problems import ServiceUnavailable
from api.row_queue import Writes
from db.batch import Batch
from db.engine import is_contended, is_of_erased
from db.outbox import OutboxEntry
from dispatch.relay import Relay
from operations import fasts
from operations.fasts import CarriedOut, Order

_MOST = 100  # starts in a transaction
_IN_FLIGHT = 2  # transactions: one is written while PostgreSQL commits the other


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
