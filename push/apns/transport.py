"""aioapns' request, result, key and pool types over our own HTTP/2 connections: one attempt, one provider token.

aioapns' own transport loses flow-control credit, ignores what RST_STREAM and GOAWAY mean, and sends again in silence.
"""

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Never

from aioapns.common import NotificationRequest, NotificationResult, PushType
from aioapns.connection import APNsKeyConnectionPool, JWTAuthorizationHeaderProvider
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from hpack import HeaderTuple, NeverIndexedHeaderTuple
from jwt import PyJWS
from jwt.algorithms import ECAlgorithm
from jwt.utils import der_to_raw_signature

from push.http2.pool import Pool, StreamLease
from push.http2.streams import Response
from push.verdict import NOT_THE_PROVIDER

_UUID = re.compile(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
GRID = 40 * 60  # seconds; Apple takes a token for an hour
HALF_GRID = 20 * 60  # seconds; Apple counts refreshes, and refuses more than one in this time
SKEW = 60  # seconds; a token is at least as old as that when it is first shown, so that no clock finds it unborn


class _Es256(ECAlgorithm):
    """ES256 whose signature of the same words is always the same (RFC 6979)."""

    def sign(self, msg: bytes, key: EllipticCurvePrivateKey) -> bytes:
        try:
            signature = key.sign(msg, ECDSA(SHA256(), deterministic_signing=True))
        except UnsupportedAlgorithm:  # an OpenSSL before 3.2, which the wheels do not have
            return super().sign(msg, key)
        return der_to_raw_signature(signature, key.curve)


_jws = PyJWS()
_jws.unregister_algorithm("ES256")
_jws.register_algorithm("ES256", _Es256(SHA256))


class ProviderToken(JWTAuthorizationHeaderProvider):
    """The token of one (team, key). `iat` lies on a fixed grid, so that all processes show the very same token."""

    def __init__(self, *, key: str, key_id: str, team_id: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(key=key, key_id=key_id, team_id=team_id)
        self._clock = clock
        self._issued_at = 0
        self._header = ""

    def get_header(self) -> str:
        """Give the token that is current on the grid."""
        return self._issued(self._latest(GRID))

    def refused(self, header: str) -> bool:
        """Take note that Apple called this token expired. False: ours is young, so some clock is wrong."""
        return self._issued(self._latest(HALF_GRID)) != header

    def _latest(self, grid: int) -> int:
        """Find the last instant of a grid that is no younger than SKEW."""
        return (int(self._clock()) - SKEW) // grid * grid

    def _issued(self, issued_at: int) -> str:
        if issued_at > self._issued_at or self._issued_at > self._clock():  # the clock was ahead for a while
            claims = json.dumps({"iss": self.team_id, "iat": issued_at}, separators=(",", ":")).encode()
            token = _jws.encode(claims, self.key, algorithm="ES256", headers={"kid": self.key_id})
            self._issued_at, self._header = issued_at, f"bearer {token}"
        return self._header


@lru_cache(maxsize=64)
def provider_token(key: str, key_id: str, team_id: str) -> ProviderToken:
    """Give the one token that this process has for a (team, key), whichever app asks: Apple counts them by team."""
    return ProviderToken(key=key, key_id=key_id, team_id=team_id)


class ApnsRequest(NotificationRequest):
    """A request whose expiry is an instant (aioapns counts from the moment of sending) and whose body is encoded."""

    __slots__ = ("body", "expiration")

    def __init__(
        self, *, token: str, apns_id: str, topic: str, collapse_key: str | None, expiration: int, body: bytes
    ) -> None:
        super().__init__(
            token,
            {},
            notification_id=apns_id,
            priority=10,
            collapse_key=collapse_key,
            push_type=PushType.ALERT,
            apns_topic=topic,
        )
        self.expiration = expiration  # UNIX seconds
        self.body = body


class ApnsStreamLease:
    """Leave to make one call to Apple."""

    def __init__(self, place: StreamLease, authority: bytes, provider_token: ProviderToken) -> None:
        self._place = place
        self._authority = authority
        self._provider_token = provider_token
        self._authorization = provider_token.get_header()

    async def send_notification(self, request: ApnsRequest) -> NotificationResult:
        """Make the one call; raises Unavailable."""
        response = await self._place.call(self._headers(request), request.body)
        return _result(request, response)

    def renew_provider_token(self) -> bool:
        """Renew the token that this call was refused with; False where it is too young to be the trouble."""
        return self._provider_token.refused(self._authorization)

    def retire_connection(self, why: str) -> None:
        """Let the next calls go over another connection."""
        self._place.retire_connection(why)

    def _headers(self, request: ApnsRequest) -> list[HeaderTuple]:
        push_type = request.push_type or PushType.ALERT
        headers: list[HeaderTuple] = [
            HeaderTuple(b":method", b"POST"),
            HeaderTuple(b":scheme", b"https"),
            NeverIndexedHeaderTuple(b":path", b"/3/device/" + request.device_token.encode()),
            HeaderTuple(b":authority", self._authority),
            HeaderTuple(b"authorization", self._authorization.encode()),
            HeaderTuple(b"apns-topic", (request.apns_topic or "").encode()),
            HeaderTuple(b"apns-push-type", push_type.value.encode()),
            HeaderTuple(b"apns-priority", str(request.priority).encode()),
            NeverIndexedHeaderTuple(b"apns-id", request.notification_id.encode()),
            NeverIndexedHeaderTuple(b"apns-expiration", str(request.expiration).encode()),
        ]
        if request.collapse_key is not None:
            headers.append(NeverIndexedHeaderTuple(b"apns-collapse-id", request.collapse_key.encode()))
        return headers


class ApnsPool(APNsKeyConnectionPool):
    """aioapns' key pool, with every connection made by `push.http2_pool`. Made inside a running event loop."""

    def __init__(self, http2: Pool, *, provider_token: ProviderToken, topic: str) -> None:
        self._http2 = http2
        self._provider_token = provider_token
        super().__init__(
            key=provider_token.key,
            key_id=provider_token.key_id,
            team_id=provider_token.team_id,
            topic=topic,
            max_connection_attempts=1,
            ssl_context=http2.tls,
        )

    @asynccontextmanager
    async def place(self, user_digest: int = 0) -> AsyncIterator[ApnsStreamLease]:
        """Wait for room on a live connection; raises Unavailable."""
        async with self._http2.place(user_digest) as place:
            yield ApnsStreamLease(place, self._http2.authority, self._provider_token)

    async def aclose(self) -> None:
        """Let calls in flight finish, then close."""
        await self._http2.close()

    async def create_connection(self) -> Never:
        """Keep aioapns' own transport from being used."""
        raise NotImplementedError("take a place instead")


def _result(request: ApnsRequest, response: Response) -> NotificationResult:
    """Read an answer. Apple says nothing with a 200: words without an id of Apple's are somebody else's."""
    apns_id = _apns_id(response.headers.get(b"apns-id", request.notification_id.encode()))
    if response.status == 200:
        is_apples = not response.body.strip() or (apns_id and b"apns-id" in response.headers)
        return NotificationResult(apns_id, "200", None if is_apples else NOT_THE_PROVIDER)
    try:
        error = json.loads(response.body) if response.body else None
    except (ValueError, RecursionError):  # a proxy's HTML, or worse
        error = None
    if not isinstance(error, dict):
        error = {}
    return NotificationResult(apns_id, str(response.status), error.get("reason"), error.get("timestamp"))


def _apns_id(header: bytes) -> str:
    """Give an apns-id in its canonical form; "" for what is no UUID, whatever its bytes are."""
    return header.decode("ascii").lower() if _UUID.fullmatch(header) else ""
