"""FCM and its token endpoint: one endpoint for both, as they share a port."""

import asyncio
import json
import re
import time
import uuid
from dataclasses import dataclass
from typing import Any

from simulator import fcm_rules
from simulator.fault_kinds import Error
from simulator.faults import Faults
from simulator.fcm_rules import FcmMessage, checked_message, is_dry_run, target
from simulator.http.exchange import Answer, Exchange, SimulatedEnvironment, SimulatedProvider, Unprocessed
from simulator.oauth import AccessTokens, AccessTokenState
from simulator.phones import Phones, Receipt
from simulator.wire import WireLog, WireRequest

_SEND = re.compile(rb"/v1/projects/([^/]+)/messages:send")
_TOKEN_PATH = b"/token"
_OAUTH_DOWN = b"Service Unavailable"


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
