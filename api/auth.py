"""Who calls: bearer tokens (JWT), checked against a shared secret or a key set."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import jwt

from api.jwks import KeySet, NoSuchKey
from api.problems import Unauthorized
from config import ANY_AUDIENCE, AuthSettings

LEEWAY = 10  # seconds that clocks may differ
_LONGEST_USER_ID = 200
_LAST_INSTANT = datetime.max.replace(tzinfo=UTC).timestamp() - 1


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a checked token names."""

    user_id: str
    scopes: frozenset[str]
    expires_at: datetime  # of the token, the clocks' difference added


class _Keys(Protocol):
    algorithms: Sequence[str]

    async def key(self, token: str) -> Any: ...  # noqa: ANN401 -- whatever key type the algorithm takes


class TokenCheck:
    """Checks bearer tokens: signature, expiry, and audience and issuer where they are set."""

    def __init__(self, settings: AuthSettings) -> None:
        self._keys = _keys(settings)
        self._audience = None if settings.audience == ANY_AUDIENCE else settings.audience
        self._issuer = settings.issuer

    async def caller(self, token: str) -> Caller:
        """Say who a token's bearer is; raises Unauthorized."""
        try:
            claims = jwt.decode(
                token,
                await self._keys.key(token),
                algorithms=list(self._keys.algorithms),
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except (jwt.PyJWTError, NoSuchKey) as error:
            raise Unauthorized(f"The bearer token is not valid ({type(error).__name__}).") from None
        user_id, scope = claims["sub"], claims.get("scope", "")
        if not 0 < len(user_id) <= _LONGEST_USER_ID or not user_id.isprintable():
            raise Unauthorized("The bearer token's sub must be a user id of 1 to 200 printable characters.")
        expires_at = datetime.fromtimestamp(min(int(claims["exp"]) + LEEWAY, _LAST_INSTANT), UTC)
        return Caller(user_id, frozenset(scope.split() if isinstance(scope, str) else ()), expires_at)


class _Secret:
    algorithms: Sequence[str] = ("HS256",)

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def key(self, _: str) -> str:
        return self._secret


def _keys(settings: AuthSettings) -> _Keys:
    if settings.jwt_secret is not None:
        return _Secret(settings.jwt_secret.get_secret_value())
    assert settings.jwks_url is not None
    return KeySet(settings.jwks_url)
