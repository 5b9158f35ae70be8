"""Apple's rules for one push: path, headers and payload.

https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
"""

import json
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from simulator.http.exchange import Exchange
from simulator.settings import AppCredentials


class Rejection(Exception):
    """A refused APNs push: status, reason, and for a dead token when it died."""

    def __init__(self, status: int, reason: str, *, timestamp_ms: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.timestamp_ms = timestamp_ms


_PATH = b"/3/device/"
_TOKEN = re.compile(r"(?:[0-9a-f]{2}){32,100}")  # Apple: assume no size; 64 digits today
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TOPIC = re.compile(rb"[A-Za-z0-9.-]{1,255}")
_PRIORITIES = frozenset({b"10", b"5", b"1"})
_PUSH_TYPES = frozenset(
    b"alert background controls location voip complication fileprovider mdm liveactivity pushtotalk widgets".split()
)
_TOPIC_SUFFIXES = {
    b"liveactivity": b".push-type.liveactivity",
    b"controls": b".push-type.controls",
    b"widgets": b".push-type.widgets",
    b"location": b".location-query",
    b"voip": b".voip",
    b"complication": b".complication",
    b"fileprovider": b".pushkit.fileprovider",
    b"pushtotalk": b".voip-ptt",
}
_LARGEST_PAYLOAD = 4096
_LARGEST_VOIP_PAYLOAD = 5120
_LONGEST_COLLAPSE_ID = 64


def device_token(path: bytes) -> str:
    """Read the device token from the path, unchecked; empty when the path is not a device's."""
    return path[len(_PATH) :].decode("latin-1").lower() if path.startswith(_PATH) else ""


def topic_of(headers: dict[bytes, bytes]) -> str | None:
    """Read the app's topic, without the push type's suffix; None without a matching topic."""
    suffix = _TOPIC_SUFFIXES.get(headers.get(b"apns-push-type", b"alert"), b"")
    received = headers.get(b"apns-topic", b"")
    return received.removesuffix(suffix).decode("latin-1") if received.endswith(suffix) and received else None


def check_request(exchange: Exchange, token: str, topics: Container[str]) -> None:
    """Raise Rejection unless method, path and headers are right."""
    if not exchange.path.startswith(_PATH):
        raise Rejection(404, "BadPath")
    if exchange.method != b"POST":
        raise Rejection(405, "MethodNotAllowed")
    if exchange.repeats_headers:
        raise Rejection(400, "DuplicateHeaders")
    _check_headers(exchange.headers)
    _check_topic(exchange.headers, topics)
    if not token:
        raise Rejection(400, "MissingDeviceToken")
    if not _TOKEN.fullmatch(token):
        raise Rejection(400, "BadDeviceToken")


def checked_payload(exchange: Exchange) -> dict[str, Any]:
    """Read the payload; raise Rejection when it is too large, empty, or no JSON object with `aps`."""
    is_voip = exchange.headers.get(b"apns-push-type") == b"voip"
    if len(exchange.body) > (_LARGEST_VOIP_PAYLOAD if is_voip else _LARGEST_PAYLOAD):
        raise Rejection(413, "PayloadTooLarge")
    try:
        payload = json.loads(exchange.body) if exchange.body else None
    except ValueError:
        payload = None
    # Apple documents no reason of its own for a payload that is not JSON.
    if not isinstance(payload, dict) or not isinstance(payload.get("aps"), dict):
        raise Rejection(400, "PayloadEmpty")
    return payload


def _check_headers(headers: dict[bytes, bytes]) -> None:
    message_id = headers.get(b"apns-id")
    if message_id is not None and not _UUID.fullmatch(message_id):
        raise Rejection(400, "BadMessageId")
    expiration = headers.get(b"apns-expiration")
    if expiration is not None and not expiration.isdigit():
        raise Rejection(400, "BadExpirationDate")
    push_type = headers.get(b"apns-push-type", b"alert")
    if push_type not in _PUSH_TYPES:
        raise Rejection(400, "InvalidPushType")
    priority = headers.get(b"apns-priority", b"10")
    if priority not in _PRIORITIES or (push_type == b"background" and priority != b"5"):
        raise Rejection(400, "BadPriority")
    if len(headers.get(b"apns-collapse-id", b"")) > _LONGEST_COLLAPSE_ID:
        raise Rejection(400, "BadCollapseId")


def _check_topic(headers: dict[bytes, bytes], topics: Container[str]) -> None:
    if topic_of(headers) in topics:
        return
    received = headers.get(b"apns-topic")
    if received is None:
        raise Rejection(400, "MissingTopic")
    if not _TOPIC.fullmatch(received):
        raise Rejection(400, "BadTopic")
    raise Rejection(400, "DeviceTokenNotForTopic")


_LONGEST_LIFE = 60 * 60
_SHORTEST_LIFE = 20 * 60
_CLOCK_SKEW = 5 * 60
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class _Issued:
    """A token with a good signature."""

    team_id: str
    timestamp: float


class ProviderTokens:
    """Verifies each token's signature once, and its age every time."""

    def __init__(self, apps: Sequence[AppCredentials]) -> None:
        self.topics = {each.app.topic: each.app.team_id for each in apps}
        self._keys = {(each.app.key_id, each.app.team_id): each.apns_public_key for each in apps}
        self._issued: dict[bytes, _Issued] = {}  # by authorization header

    def check(self, authorization: bytes | None, topic: str, session: dict[bytes, Any], now: float) -> None:
        """Raise Rejection unless this token may be used now, on this connection and for this topic."""
        if authorization is None:
            raise Rejection(403, "MissingProviderToken")
        issued = self._issued.get(authorization)
        if issued is None:
            issued = self._verified(authorization)
            if len(self._issued) >= _REMEMBERED:
                self._issued.clear()
            self._issued[authorization] = issued
        if now - issued.timestamp > _LONGEST_LIFE:
            raise Rejection(403, "ExpiredProviderToken")
        if issued.timestamp - now > _CLOCK_SKEW:
            raise Rejection(403, "InvalidProviderToken")
        if self.topics[topic] != issued.team_id:
            raise Rejection(400, "TopicDisallowed")
        if authorization not in session:
            _check_change(issued, list(session.values()))
            session[authorization] = issued

    def _verified(self, authorization: bytes) -> _Issued:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Rejection(403, "MissingProviderToken")
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, options={"verify_signature": False})
            key = self._keys.get((str(header.get("kid")), str(claims.get("iss"))))
            if key is None:
                raise Rejection(403, "InvalidProviderToken")
            jwt.decode(token, key, algorithms=["ES256"], options={"verify_iat": False})
        except jwt.InvalidTokenError as error:
            raise Rejection(403, "InvalidProviderToken") from error
        issued = claims.get("iat")
        if isinstance(issued, bool) or not isinstance(issued, int | float):
            raise Rejection(403, "InvalidProviderToken")
        return _Issued(claims["iss"], float(issued))


def _check_change(issued: _Issued, before: Sequence[_Issued]) -> None:
    """Raise Rejection unless a connection with these tokens may change to this one."""
    if any(each.team_id != issued.team_id for each in before):
        raise Rejection(403, "UnrelatedKeyIdInToken")
    if before and issued.timestamp - max(each.timestamp for each in before) < _SHORTEST_LIFE:
        raise Rejection(429, "TooManyProviderTokenUpdates")
