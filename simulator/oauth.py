"""Google's token endpoint: a signed assertion in, an access token out."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from urllib.parse import parse_qs

import jwt

from simulator.credentials import AppCredentials
from simulator.fcm_rules import json_answer
from simulator.http.exchange import Answer, Exchange

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPES = frozenset(
    {"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"}
)
_LONGEST_ASSERTION = 3600 + 10

_SIGNED_FOR = "https://oauth2.googleapis.com/token"  # by google-auth, wherever it sends the assertion


class AccessTokenState(StrEnum):
    """The state of an access token. The values are Google's ErrorInfo reasons."""

    VALID = "VALID"
    EXPIRED = "ACCESS_TOKEN_EXPIRED"
    UNKNOWN = "ACCESS_TOKEN_TYPE_UNSUPPORTED"  # never issued, or revoked
    MISSING = "CREDENTIALS_MISSING"


@dataclass(slots=True)
class _Issued:
    """An issued access token."""

    project: str
    expires: float


class AccessTokens:
    """Issues access tokens for assertions of the apps' service accounts, and checks them."""

    def __init__(self, apps: Sequence[AppCredentials], token_uri: str, lifetime: timedelta) -> None:
        self._accounts = {each.app.client_email: each for each in apps}
        self._token_uri = token_uri
        self._lifetime = lifetime
        self._issued: dict[bytes, _Issued] = {}  # by authorization header

    def revoke(self, project: str | None) -> None:
        """Revoke all tokens, or those of one project."""
        self._issued = {key: issued for key, issued in self._issued.items() if project not in {None, issued.project}}

    def expire(self, project: str | None) -> None:
        """Expire all tokens, or those of one project."""
        for issued in self._issued.values():
            if project in {None, issued.project}:
                issued.expires = 0.0

    def project(self, authorization: bytes) -> str:
        """Give the project of a known token."""
        return self._issued[authorization].project

    def state(self, authorization: bytes | None, now: float) -> AccessTokenState:
        """Check an authorization header."""
        if authorization is None:
            return AccessTokenState.MISSING
        issued = self._issued.get(authorization)
        if issued is None:
            return AccessTokenState.UNKNOWN
        return AccessTokenState.VALID if now < issued.expires else AccessTokenState.EXPIRED

    def grant(self, exchange: Exchange) -> Answer:
        """Answer `POST /token`."""
        form = parse_qs(exchange.body.decode("latin-1"))
        if form.get("grant_type") != [_GRANT]:
            return _refused("unsupported_grant_type", "Invalid grant_type")
        assertion = form.get("assertion", [""])[0]
        try:
            issuer = jwt.decode(assertion, options={"verify_signature": False}).get("iss")
            account = self._accounts.get(str(issuer))
            if account is None:
                return _refused("invalid_grant", "Invalid grant: account not found")
            claims = jwt.decode(
                assertion,
                account.fcm_public_key,
                algorithms=["RS256"],
                audience=[self._token_uri, _SIGNED_FOR],
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except jwt.InvalidTokenError as error:
            return _refused("invalid_grant", f"Invalid JWT: {error}")
        if claims["exp"] - claims["iat"] > _LONGEST_ASSERTION:
            return _refused("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        if not _SCOPES & set(str(claims.get("scope", "")).split()):
            return _refused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        token = f"ya29.{secrets.token_urlsafe(32)}"
        expires = time.time() + self._lifetime.total_seconds()
        self._issued[f"Bearer {token}".encode()] = _Issued(account.app.project, expires)
        expires_in = int(self._lifetime.total_seconds())
        return json_answer(200, {"access_token": token, "expires_in": expires_in, "token_type": "Bearer"})


def _refused(error: str, description: str) -> Answer:
    return json_answer(400, {"error": error, "error_description": description}, reason=error)
