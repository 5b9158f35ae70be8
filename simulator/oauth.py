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
    """What an access token is worth. The values are Google's ErrorInfo reasons."""

    VALID = "VALID"
    EXPIRED = "ACCESS_TOKEN_EXPIRED"
    UNKNOWN = "ACCESS_TOKEN_TYPE_UNSUPPORTED"  # never given out, or revoked
    MISSING = "CREDENTIALS_MISSING"


@dataclass(slots=True)
class _Given:
    """An access token that was given out."""

    project: str
    expires: float


class AccessTokens:
    """Gives out access tokens for assertions of the apps' service accounts, and knows them again."""

    def __init__(self, apps: Sequence[AppCredentials], token_uri: str, lifetime: timedelta) -> None:
        self._accounts = {each.app.client_email: each for each in apps}
        self._token_uri = token_uri
        self._lifetime = lifetime
        self._given: dict[bytes, _Given] = {}  # by authorization header

    def revoke(self, project: str | None) -> None:
        """Every token given out so far (for this project, where one is named) stops working."""
        self._given = {key: given for key, given in self._given.items() if project not in {None, given.project}}

    def expire(self, project: str | None) -> None:
        """Every token given out so far (for this project, where one is named) has come to its end."""
        for given in self._given.values():
            if project in {None, given.project}:
                given.expires = 0.0

    def project(self, authorization: bytes) -> str:
        """Tell for whose messages a known token is good."""
        return self._given[authorization].project

    def state(self, authorization: bytes | None, now: float) -> AccessTokenState:
        """Judge an authorization header."""
        if authorization is None:
            return AccessTokenState.MISSING
        given = self._given.get(authorization)
        if given is None:
            return AccessTokenState.UNKNOWN
        return AccessTokenState.VALID if now < given.expires else AccessTokenState.EXPIRED

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
        self._given[f"Bearer {token}".encode()] = _Given(account.app.project, expires)
        expires_in = int(self._lifetime.total_seconds())
        return json_answer(200, {"access_token": token, "expires_in": expires_in, "token_type": "Bearer"})


def _refused(error: str, description: str) -> Answer:
    return json_answer(400, {"error": error, "error_description": description}, reason=error)
