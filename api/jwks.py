"""A key set at an address: cached, fetched anew when it is old or a token names a key it lacks."""

import asyncio
import time
from collections.abc import Sequence

import httpx
import jwt
import structlog

_FRESH_FOR = 300.0  # seconds
_LET_GO_AFTER = 24 * 3600.0  # seconds; the issuer may be down this long before we stop trusting what we have
_AT_MOST_EVERY = 10.0  # seconds between fetches, whatever tokens name

log = structlog.get_logger()


class NoSuchKey(Exception):
    """The key set has no key for this token, or cannot be had."""


class KeySet:
    """The issuer's public keys."""

    algorithms: Sequence[str] = ("RS256", "ES256")

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._asked_at = float("-inf")  # monotonic seconds
        self._lock = asyncio.Lock()

    async def key(self, token: str) -> jwt.PyJWK:
        """Find the key that a token's header names."""
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str):
            raise NoSuchKey
        if kid not in self._keys or time.monotonic() - self._fetched_at > _FRESH_FOR:
            await self._fetch(kid)
        if kid not in self._keys or time.monotonic() - self._fetched_at > _LET_GO_AFTER:
            raise NoSuchKey
        return self._keys[kid]

    async def _fetch(self, kid: str) -> None:
        """Fetch once for all who wait; trouble leaves the keys as they are."""
        async with self._lock:
            now = time.monotonic()
            known = kid in self._keys and now - self._fetched_at <= _FRESH_FOR
            if known or now - self._asked_at < _AT_MOST_EVERY:
                return
            self._asked_at = now
            try:
                async with httpx.AsyncClient(timeout=5) as client:
                    answer = (await client.get(self._url)).raise_for_status()
                keys = jwt.PyJWKSet.from_dict(answer.json()).keys
            except (httpx.HTTPError, jwt.PyJWTError, ValueError) as error:
                log.error("key set cannot be fetched", error=type(error).__name__)  # noqa: TRY400 -- its text names the address
                return
            self._keys = {key.key_id: key for key in keys if key.key_id}
            self._fetched_at = now
