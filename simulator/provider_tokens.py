"""Apple's provider tokens: signature, key, team, age, and how often a connection changes them."""

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from simulator.rejection import Rejection

_LONGEST_LIFE = 60 * 60
_SHORTEST_LIFE = 20 * 60
_CLOCK_SKEW = 5 * 60
_REMEMBERED = 1000


class ProviderTokens:
    """Verifies each token once; its age every time."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey, key_id: str, team_id: str) -> None:
        self._public_key = public_key
        self._key_id = key_id
        self._team_id = team_id
        self._issued: dict[bytes, float] = {}  # good signatures by authorization header

    def check(self, authorization: bytes | None, session: dict[bytes, float], now: float) -> None:
        """Raise Rejection unless this token may be used on this connection now."""
        if authorization is None:
            raise Rejection(403, "MissingProviderToken")
        issued = self._issued.get(authorization)
        if issued is None:
            issued = self._verified(authorization)
            if len(self._issued) >= _REMEMBERED:
                self._issued.clear()
            self._issued[authorization] = issued
        if now - issued > _LONGEST_LIFE:
            raise Rejection(403, "ExpiredProviderToken")
        if issued - now > _CLOCK_SKEW:
            raise Rejection(403, "InvalidProviderToken")
        if authorization not in session:
            if session and issued - max(session.values()) < _SHORTEST_LIFE:
                raise Rejection(429, "TooManyProviderTokenUpdates")
            session[authorization] = issued

    def _verified(self, authorization: bytes) -> float:
        """When the token was issued."""
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Rejection(403, "MissingProviderToken")
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, self._public_key, algorithms=["ES256"], options={"verify_iat": False})
        except jwt.InvalidTokenError as error:
            raise Rejection(403, "InvalidProviderToken") from error
        issued = claims.get("iat")
        is_ours = header.get("kid") == self._key_id and claims.get("iss") == self._team_id
        if not is_ours or isinstance(issued, bool) or not isinstance(issued, int | float):
            raise Rejection(403, "InvalidProviderToken")
        return float(issued)
