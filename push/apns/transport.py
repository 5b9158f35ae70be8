"""What Apple's protocol adds to HTTP/2: the provider token, the headers of a request, and the reading of an answer."""

import json
import re
import time
from collections.abc import Callable
from functools import lru_cache

from aioapns.common import PRIORITY_HIGH, NotificationResult, PushType
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hpack import HeaderTuple, NeverIndexedHeaderTuple
from jwt.utils import base64url_encode, der_to_raw_signature

from domain.push import Push
from push.http2.streams import Response
from push.verdict import NOT_THE_PROVIDER

_UUID = re.compile(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
GRID = 40 * 60  # seconds; Apple takes a token for an hour
HALF_GRID = 20 * 60  # seconds; Apple counts refreshes, and refuses more than one in this time
SKEW = 60  # seconds; the least age of a token that is shown, so that a clock behind ours does not refuse it


class ProviderToken:
    """The token of one (team, key). `iat` lies on a fixed grid, so that all processes show the very same token."""

    def __init__(self, *, key: str, key_id: str, team_id: str, clock: Callable[[], float] = time.time) -> None:
        private_key = load_pem_private_key(key.encode(), password=None)
        assert isinstance(private_key, EllipticCurvePrivateKey)  # as `credential_files.apns_key` has checked
        self._key = private_key
        self._key_id = key_id
        self._team_id = team_id
        self._clock = clock
        self._issued_at = 0
        self._header = ""

    def get_header(self) -> str:
        """Give the current token of the grid, as the `authorization` header has it."""
        return self._issued(self._latest(GRID))

    def refused(self, header: str) -> bool:
        """Note that Apple called this token expired, and renew it. False: it is too young, so some clock is wrong."""
        return self._issued(self._latest(HALF_GRID)) != header

    def _latest(self, grid: int) -> int:
        """Find the last instant of a grid that is at least SKEW ago."""
        return (int(self._clock()) - SKEW) // grid * grid

    def _issued(self, issued_at: int) -> str:
        if issued_at > self._issued_at or self._issued_at > self._clock():  # the clock was ahead for a while
            self._issued_at, self._header = issued_at, f"bearer {self._signed(issued_at)}"
        return self._header

    def _signed(self, issued_at: int) -> str:
        """Write the JWT; the same words always get the same signature (RFC 6979), which PyJWT does not offer."""
        parts = ({"alg": "ES256", "kid": self._key_id, "typ": "JWT"}, {"iss": self._team_id, "iat": issued_at})
        signed = b".".join(base64url_encode(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
        try:
            signature = self._key.sign(signed, ECDSA(SHA256(), deterministic_signing=True))
        except UnsupportedAlgorithm:  # an OpenSSL before 3.2, which the wheels do not have
            signature = self._key.sign(signed, ECDSA(SHA256()))
        return (signed + b"." + base64url_encode(der_to_raw_signature(signature, self._key.curve))).decode()


@lru_cache(maxsize=64)
def provider_token(key: str, key_id: str, team_id: str) -> ProviderToken:
    """Give the one token that this process has for a (team, key), whichever app asks: Apple counts them by team."""
    return ProviderToken(key=key, key_id=key_id, team_id=team_id)


def headers(push: Push, *, authority: bytes, authorization: str, topic: str) -> list[HeaderTuple]:
    """Write the headers of a request; what differs from push to push stays out of the compression table."""
    written: list[HeaderTuple] = [
        HeaderTuple(b":method", b"POST"),
        HeaderTuple(b":scheme", b"https"),
        NeverIndexedHeaderTuple(b":path", b"/3/device/" + push.token.encode()),
        HeaderTuple(b":authority", authority),
        HeaderTuple(b"authorization", authorization.encode()),
        HeaderTuple(b"apns-topic", topic.encode()),
        HeaderTuple(b"apns-push-type", PushType.ALERT.value.encode()),
        HeaderTuple(b"apns-priority", PRIORITY_HIGH.encode()),
        NeverIndexedHeaderTuple(b"apns-id", str(push.attempt_id).encode()),
        NeverIndexedHeaderTuple(b"apns-expiration", str(int(push.expires_at.timestamp())).encode()),
    ]
    if push.collapse_key is not None:
        written.append(NeverIndexedHeaderTuple(b"apns-collapse-id", push.collapse_key.encode()))
    return written


def result(push: Push, response: Response) -> NotificationResult:
    """Read an answer. Apple sends no body with a 200: one without an `apns-id` is somebody else's."""
    apns_id = _apns_id(response.headers.get(b"apns-id", str(push.attempt_id).encode()))
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
