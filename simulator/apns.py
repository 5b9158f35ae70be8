"""APNs: one endpoint per environment."""

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from simulator.apns_rules import ProviderTokens, Rejection, check_request, checked_payload, device_token, topic_of
from simulator.fault_kinds import Error
from simulator.faults import Faults
from simulator.http.exchange import Answer, Exchange, SimulatedEnvironment, SimulatedProvider, Unprocessed
from simulator.phones import Notification, Phones, Receipt
from simulator.wire import WireLog, WireRequest


class ApnsEndpoint:
    """Takes pushes for the phones of one environment."""

    def __init__(
        self, environment: SimulatedEnvironment, tokens: ProviderTokens, phones: Phones, wire: WireLog, faults: Faults
    ) -> None:
        self.environment = environment
        self.tokens = tokens
        self.phones = phones
        self._wire = wire
        self._faults = faults

    def receive(self, exchange: Exchange) -> None:
        """Answer a push."""
        self._faults.answer(self._push(exchange))

    def unprocessed(self, exchange: Exchange, why: Unprocessed) -> None:
        """Note a push that the connection itself refused."""
        self._push(exchange).request.reason = why.value

    def _push(self, exchange: Exchange) -> "_ApnsPush":
        request = self._wire.append(
            time.time(),
            SimulatedProvider.APNS,
            self.environment,
            device_token(exchange.path),
            exchange.headers,
            exchange.body,
        )
        request.app = topic_of(exchange.headers) or exchange.headers.get(b"apns-topic", b"").decode("latin-1")
        message_id = exchange.headers.get(b"apns-id")
        request.message_id = str(uuid.uuid4()) if message_id is None else message_id.decode("latin-1")
        return _ApnsPush(self, exchange, request)


@dataclass(slots=True, eq=False)
class _ApnsPush:
    _endpoint: ApnsEndpoint
    exchange: Exchange
    request: WireRequest

    def processed(self) -> Answer:
        now = self.request.received_timestamp
        try:
            tokens, authorization = self._endpoint.tokens, self.exchange.headers.get(b"authorization")
            check_request(self.exchange, self.request.token, tokens.topics)
            tokens.check(authorization, self.request.app, self.exchange.session, now)
            payload = checked_payload(self.exchange)
            self._deliver(payload, now)
        except Rejection as rejection:
            return self._answer(rejection.status, rejection.reason, rejection.timestamp_ms)
        return self._answer(200, None, None)

    def accepted(self, message_id: str) -> Answer:
        return Answer(200, None, ((b"apns-id", message_id.encode()),))

    def error(self, error: Error) -> Answer:
        return self._answer(error.status or 500, error.reason, error.timestamp)

    def _deliver(self, payload: dict[str, Any], now: float) -> None:
        if not self.request.token.strip("f"):
            raise Rejection(400, "BadDeviceToken")  # Apple never gives out such a token
        phones = self._endpoint.phones
        phone = phones.seen(self.request.token, SimulatedProvider.APNS, self._endpoint.environment)
        if phone.environment is not self._endpoint.environment or phone.provider is not SimulatedProvider.APNS:
            raise Rejection(400, "BadDeviceToken")
        if phone.app is None:
            phone.app = self.request.app
        elif phone.app != self.request.app:
            raise Rejection(400, "DeviceTokenNotForTopic")
        dead_since = phones.dead_since(self.request.token, now)
        if dead_since is not None:
            raise Rejection(410, "Unregistered", timestamp_ms=int(dead_since * 1000))
        expiration = self.exchange.headers.get(b"apns-expiration")
        expires = None if expiration is None else float(expiration)
        phones.deliver(phone, Receipt(self.request, _notification(self.exchange, payload), expires), now)

    def _answer(self, status: int, reason: str | None, timestamp_ms: int | None) -> Answer:
        headers = ((b"apns-id", (self.request.message_id or "").encode()),)
        if status == 200:
            return Answer(200, None, headers)
        body: dict[str, str | int | None] = {"reason": reason}
        if timestamp_ms is not None:
            body["timestamp"] = timestamp_ms
        return Answer(status, reason, headers, (json.dumps(body, separators=(",", ":")).encode(),))


def _notification(exchange: Exchange, payload: dict[str, Any]) -> Notification:
    aps = payload["aps"]
    alert = aps.get("alert")
    if isinstance(alert, dict):
        title, body = alert.get("title"), alert.get("body")
    else:
        title, body = None, alert
    data = {key: value for key, value in payload.items() if key != "aps"}
    collapse_id = exchange.headers.get(b"apns-collapse-id")
    task_id, level = data.get("task_id"), aps.get("interruption-level", "active")
    return Notification(
        title=title,
        body=body,
        data=data,
        collapse_key=None if collapse_id is None else collapse_id.decode(errors="replace"),
        identity=task_id if isinstance(task_id, str) else exchange.body,
        is_visible=alert is not None and exchange.headers.get(b"apns-push-type") != b"background",
        has_sound="sound" in aps and level != "passive",
        level=level,
        sound=aps["sound"] if isinstance(aps.get("sound"), str) else None,
        badge=aps["badge"] if isinstance(aps.get("badge"), int) else None,
    )
