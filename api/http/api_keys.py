"""API keys as requests show them: looked up together, and kept in memory for a few seconds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from api.http.problems import Detail, ServiceUnavailable
from db import api_keys
from db.api_keys import ApiKey
from db.batch import Batch
from db.engine import TROUBLE, Sessions

FRESH_FOR = 3.0  # seconds; a revoked key is refused once they have passed
_ANSWERS_WITHIN = 5.0  # seconds
_MAX_KEPT = 1000  # keys; beyond that, those that are not fresh are dropped
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Known:
    """A key as it was at a moment."""

    key: ApiKey
    looked_up_at: float  # on the clock, before the query


class ApiKeys:
    """Finds keys by their text.

    One query at a time answers all requests that wait, so made-up keys take one connection, however many there are.
    What cannot be a key costs no query.
    """

    def __init__(self, sessions: Sessions, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions = sessions
        self._clock = clock
        self._known: dict[bytes, _Known] = {}  # no unknown ones, which would fill it
        self._look_ups = Batch(self._look_up, in_flight=1, within=_ANSWERS_WITHIN)

    async def find(self, key: str) -> ApiKey | None:
        """Find a key, and record that it was used; None if there is none. Raises ServiceUnavailable."""
        digest = api_keys.digest_of(key)
        if digest is None:
            return None
        known = self._known.get(digest)
        if known is not None and self._is_fresh(known):
            return known.key
        try:
            return await self._look_ups.ask(digest)
        except TROUBLE as error:
            log.warning("looking up an API key failed", error=type(error).__name__)
            raise ServiceUnavailable(Detail.NO_KEYS) from error

    async def _look_up(self, digests: Sequence[bytes]) -> Sequence[ApiKey | None]:
        now = self._clock()
        async with self._sessions.begin() as db:
            found = await api_keys.used(db, set(digests))
        self._known |= {digest: _Known(key, now) for digest, key in found.items()}
        if len(self._known) > _MAX_KEPT:
            self._known = {digest: known for digest, known in self._known.items() if self._is_fresh(known)}
        return [found.get(digest) for digest in digests]

    def _is_fresh(self, known: _Known) -> bool:
        return self._clock() - known.looked_up_at < FRESH_FOR
