"""A key set at an address: cached, fetched anew when it is old or a token names a key it lacks."""

import asyncio
import time
from collections.abc import Callable, Sequence

import httpx
import jwt
import structlog

from api.problems import Unavailable

_FRESH_FOR = 300.0  # seconds
_LET_GO_AFTER = 24 * 3600.0  # seconds; the issuer may be down this long before we stop trusting what we have
_AT_MOST_EVERY = 10.0  # seconds between fetches, whatever tokens name

log = structlog.get_logger()


class NoSuchKey(Exception):
    """The key set has no key for this token."""


class KeySet:
    """The issuer's public keys; while the issuer is down, those that are known still count."""

    algorithms: Sequence[str] = ("RS256", "ES256")

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._asked_at = float("-inf")  # seconds on the clock
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, token: str) -> jwt.PyJWK:
        """Find the key that a token's header names; raises NoSuchKey, and Unavailable where there are no keys at all.

        Nobody waits for a fetch but those whose key is not known.
        """
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str):
            raise NoSuchKey
        known = kid in self._keys and self._age() <= _LET_GO_AFTER
        if (not known or self._age() > _FRESH_FOR) and self._clock() - self._asked_at >= _AT_MOST_EVERY:
            self._asked_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch())
        if not known and self._fetching is not None:
            await asyncio.shield(self._fetching)
        if self._age() > _LET_GO_AFTER:
            raise Unavailable("The keys that check bearer tokens cannot be had. Try again.")
        if kid not in self._keys:
            raise NoSuchKey
        return self._keys[kid]

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    async def _fetch(self) -> None:
        """Replace the keys; trouble leaves them as they are."""
        try:
            async with httpx.AsyncClient(timeout=5) as client:
                answer = (await client.get(self._url)).raise_for_status()
            keys = jwt.PyJWKSet.from_json(answer.text).keys
        except Exception as error:  # noqa: BLE001 -- whatever an issuer may answer
            log.error("key set cannot be fetched", error=type(error).__name__)  # noqa: TRY400 -- its text names the address
            return
        self._keys = {key.key_id: key for key in keys if key.key_id}
        self._fetched_at = self._clock()
