"""Apple's provider tokens: signature, key, team, age, and how often a connection changes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from simulator.credentials import AppCredentials
from simulator.rejection import Rejection

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
    """Verifies each token once; its age every time."""

    def __init__(self, apps: Sequence[AppCredentials]) -> None:
        self.topics = {each.app.topic: each.app.team_id for each in apps}
        self._keys = {(each.app.key_id, each.app.team_id): each.apns_public_key for each in apps}
        self._issued: dict[bytes, _Issued] = {}  # by authorization header

    def check(self, authorization: bytes | None, topic: str, session: dict[bytes, Any], now: float) -> None:
        """Raise Rejection unless this token may be used on this connection, for this topic, now."""
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
    """Raise Rejection unless a connection that has seen these tokens may go over to this one."""
    if any(each.team_id != issued.team_id for each in before):
        raise Rejection(403, "UnrelatedKeyIdInToken")
    if before and issued.timestamp - max(each.timestamp for each in before) < _SHORTEST_LIFE:
        raise Rejection(429, "TooManyProviderTokenUpdates")
