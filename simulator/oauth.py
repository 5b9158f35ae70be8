"""Google's token endpoint: a signed assertion in, an access token out."""

import secrets
import time
from datetime import timedelta
from enum import StrEnum
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from simulator.exchange import Answer, Exchange
from simulator.fcm_errors import json_answer

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPES = frozenset(
    {"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"}
)
_LONGEST_ASSERTION = 3600 + 10

_SIGNED_FOR = "https://oauth2.googleapis.com/token"  # by google-auth, wherever it sends the assertion


class AccessTokenState(StrEnum):
    """What an access token is worth. The values are Google's ErrorInfo reasons."""

    VALID = "VALID"
    EXPIRED = "ACCESS_TOKEN_EXPIRED"
    UNKNOWN = "ACCESS_TOKEN_TYPE_UNSUPPORTED"  # never given out, or revoked
    MISSING = "CREDENTIALS_MISSING"


class AccessTokens:
    """Gives out access tokens for assertions of one service account, and knows them again."""

    def __init__(self, public_key: rsa.RSAPublicKey, client_email: str, token_uri: str, lifetime: timedelta) -> None:
        self._public_key = public_key
        self._client_email = client_email
        self._token_uri = token_uri
        self._lifetime = lifetime
        self._expires: dict[bytes, float] = {}  # by authorization header

    def revoke_all(self) -> None:
        """Every token given out so far stops working."""
        self._expires.clear()

    def expire_all(self) -> None:
        """Every token given out so far has come to its end."""
        self._expires = dict.fromkeys(self._expires, 0.0)

    def state(self, authorization: bytes | None, now: float) -> AccessTokenState:
        """Judge an authorization header."""
        if authorization is None:
            return AccessTokenState.MISSING
        expires = self._expires.get(authorization)
        if expires is None:
            return AccessTokenState.UNKNOWN
        return AccessTokenState.VALID if now < expires else AccessTokenState.EXPIRED

    def grant(self, exchange: Exchange) -> Answer:
        """Answer `POST /token`."""
        form = parse_qs(exchange.body.decode("latin-1"))
        if form.get("grant_type") != [_GRANT]:
            return _refused("unsupported_grant_type", "Invalid grant_type")
        try:
            claims = jwt.decode(
                form.get("assertion", [""])[0],
                self._public_key,
                algorithms=["RS256"],
                audience=[self._token_uri, _SIGNED_FOR],
                issuer=self._client_email,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except jwt.InvalidTokenError as error:
            return _refused("invalid_grant", f"Invalid JWT: {error}")
        if claims["exp"] - claims["iat"] > _LONGEST_ASSERTION:
            return _refused("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        if not _SCOPES & set(str(claims.get("scope", "")).split()):
            return _refused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        token = f"ya29.{secrets.token_urlsafe(32)}"
        self._expires[f"Bearer {token}".encode()] = time.time() + self._lifetime.total_seconds()
        expires_in = int(self._lifetime.total_seconds())
        return json_answer(200, {"access_token": token, "expires_in": expires_in, "token_type": "Bearer"})


def _refused(error: str, description: str) -> Answer:
    return json_answer(400, {"error": error, "error_description": description}, reason=error)
