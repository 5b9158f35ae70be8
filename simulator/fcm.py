"""FCM, and the token endpoint that gives an access token for a signed assertion: one endpoint, as they share a port."""

import asyncio
import json
import re
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

import jwt

from simulator import fcm_rules
from simulator.fault_kinds import Error
from simulator.faults import Faults
from simulator.fcm_rules import FcmMessage, checked_message, is_dry_run, json_answer, target
from simulator.http.exchange import Answer, Exchange, SimulatedEnvironment, SimulatedProvider, Unprocessed
from simulator.phones import Phones, Receipt
from simulator.settings import AppCredentials
from simulator.wire import WireLog, WireRequest

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPES = frozenset(
    {"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"}
)
_LONGEST_ASSERTION = 3600 + 10

_SIGNED_FOR = "https://oauth2.googleapis.com/token"  # by google-auth, wherever it sends the assertion
_SEND = re.compile(rb"/v1/projects/([^/]+)/messages:send")
_TOKEN_PATH = b"/token"
_OAUTH_DOWN = b"Service Unavailable"


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


class FcmEndpoint:
    """Takes messages for the phones of all projects."""

    def __init__(self, tokens: AccessTokens, phones: Phones, wire: WireLog, faults: Faults) -> None:
        self.tokens = tokens
        self.phones = phones
        self._wire = wire
        self._faults = faults
        self.access_tokens_requested = 0

    def receive(self, exchange: Exchange) -> None:
        """Answer a message, or give out an access token."""
        if exchange.path == _TOKEN_PATH:
            self._grant(exchange)
            return
        self._faults.answer(self._push(exchange))

    def unprocessed(self, exchange: Exchange, why: Unprocessed) -> None:
        """Note a message that the connection itself refused."""
        self._push(exchange).request.reason = why.value

    def _push(self, exchange: Exchange) -> "_FcmPush":
        try:
            content = json.loads(exchange.body)
        except ValueError:
            content = None
        request = self._wire.append(
            time.time(),
            SimulatedProvider.FCM,
            SimulatedEnvironment.PRODUCTION,
            target(content),
            exchange.headers,
            exchange.body,
        )
        path = _SEND.fullmatch(exchange.path)
        request.app = "" if path is None else path.group(1).decode("latin-1")
        return _FcmPush(self, exchange, request, content)

    def _grant(self, exchange: Exchange) -> None:
        self.access_tokens_requested += 1
        trouble = self._faults.oauth()
        if trouble is None:
            is_post = exchange.method == b"POST"
            answer = self.tokens.grant(exchange) if is_post else Answer(405, "MethodNotAllowed")
            exchange.connection.answer(exchange, answer)
        elif trouble.status is not None:
            answer = Answer(trouble.status, "oauth_down", ((b"content-type", b"text/plain"),), (_OAUTH_DOWN,))
            asyncio.get_running_loop().call_later(trouble.delay, exchange.connection.answer, exchange, answer)


@dataclass(slots=True, eq=False)
class _FcmPush:
    _endpoint: FcmEndpoint
    exchange: Exchange
    request: WireRequest
    _content: object

    def processed(self) -> Answer:
        project = self.request.app
        if not project or self.exchange.method != b"POST":
            return fcm_rules.not_found()
        now = self.request.received_timestamp
        tokens, authorization = self._endpoint.tokens, self.exchange.headers.get(b"authorization")
        state = tokens.state(authorization, now)
        if authorization is None or state is not AccessTokenState.VALID:
            return fcm_rules.unauthenticated(state.value)
        if project != tokens.project(authorization):
            return fcm_rules.permission_denied(project)
        try:
            message = checked_message(self._content, self.exchange.body)
        except fcm_rules.InvalidMessage as invalid:
            return fcm_rules.invalid_argument(invalid)
        return self._deliver(message, now)

    def accepted(self, message_id: str) -> Answer:
        return fcm_rules.json_answer(200, {"name": message_id})

    def error(self, error: Error) -> Answer:
        return fcm_rules.scripted(error)

    def _deliver(self, message: FcmMessage, now: float) -> Answer:
        content: Any = self._content
        name = f"projects/{self.request.app}/messages/"
        if is_dry_run(content):
            return fcm_rules.json_answer(200, {"name": f"{name}fake_message_id"})
        phones = self._endpoint.phones
        phone = phones.seen(self.request.token, SimulatedProvider.FCM, SimulatedEnvironment.PRODUCTION)
        if phone.provider is not SimulatedProvider.FCM:
            return fcm_rules.invalid_argument(fcm_rules.InvalidMessage(None, fcm_rules.NO_TOKEN))
        if phone.app is None:
            phone.app = self.request.app
        elif phone.app != self.request.app:
            return fcm_rules.refused("SENDER_ID_MISMATCH")
        if phones.dead_since(self.request.token, now) is not None:
            return fcm_rules.refused("UNREGISTERED")
        self.request.message_id = f"{name}{uuid.uuid4().hex}"
        expires = None if message.ttl is None else (now + message.ttl if message.ttl else 0.0)
        phones.deliver(phone, Receipt(self.request, message.notification, expires), now)
        return fcm_rules.json_answer(200, {"name": self.request.message_id})
