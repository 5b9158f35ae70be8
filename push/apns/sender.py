"""Apple Push Notification service: shapes the payload, makes the call, judges the answer."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from aioapns.common import NotificationResult

from domain.presentation import InterruptionLevel
from domain.push import Environment, Push
from push.apns.errors import verdict
from push.apns.transport import headers, provider_token, result
from push.credential_files import apns_key
from push.http2.pool import DEFAULT_TIMEOUTS, Pool, StreamLease, Timeouts
from push.http2.proxy import DIRECT, Proxies
from push.payload_limit import encoded, fitted, sealed
from push.sender import (
    Accepted,
    Answer,
    AnsweredUnavailable,
    Delivery,
    Send,
    StaleCredential,
    Unavailable,
    Unsendable,
    Until,
)
from push.verdict import NOT_THE_PROVIDER, Verdict, code, delivery, reaction

log = structlog.get_logger()

MAX_PAYLOAD = 4096  # bytes
Shape = Callable[[Push], dict[str, Any]]
DEVICE_TOKEN = re.compile(r"[0-9a-fA-F]{2,400}")


@dataclass(frozen=True, slots=True)
class ApnsAccount:
    """The key that signs for one app, and Apple's addresses."""

    key_file: Path
    key_id: str
    team_id: str
    topic: str
    url: str = "https://api.push.apple.com"
    sandbox_url: str = "https://api.sandbox.push.apple.com"
    ca_file: Path | None = None
    encrypted: bool = False
    proxies: Proxies = DIRECT


class ApnsSender:
    """The Sender of one app for Apple. Made inside a running event loop; apps with the same key share its token."""

    def __init__(self, account: ApnsAccount, *, connections: int = 8, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        self._token = provider_token(apns_key(account.key_file.read_bytes()), account.key_id, account.team_id)
        self._topic = account.topic
        self._shape = sealed_payload if account.encrypted else payload
        self._pools = {
            environment: Pool(
                url,
                ca_file=account.ca_file,
                connections=connections,
                timeouts=timeouts,
                proxy=account.proxies.towards(url),
            )
            for environment, url in (
                (Environment.PRODUCTION, account.url),
                (Environment.SANDBOX, account.sandbox_url),
            )
        }

    @asynccontextmanager
    async def lease(
        self, environment: Environment, user_digest: int = 0, until: Until | None = None
    ) -> AsyncIterator[Send]:
        """Lease a stream on a live connection; raises Unavailable."""
        async with self._pools[environment].lease(user_digest, until) as lease:
            yield partial(self._send, lease)

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    async def _send(self, lease: StreamLease, push: Push) -> Answer:
        """Make exactly one call; raises ProviderTrouble."""
        if not DEVICE_TOKEN.fullmatch(push.token):
            return Unsendable("MalformedDeviceToken")  # it may break the path
        authorization = self._token.get_header()
        written = headers(push, authority=lease.authority, authorization=authorization, topic=self._topic)
        answer = result(push, await lease.call(written, request(push, self._shape)))
        if answer.status != "200":
            return self._refused(answer, lease, authorization)
        if answer.description == NOT_THE_PROVIDER:
            log.error("answer is not the provider's", provider="apns", status=200)
            raise AnsweredUnavailable(NOT_THE_PROVIDER, Delivery.UNKNOWN)
        return Accepted(answer.notification_id or None)

    def _refused(self, refusal: NotificationResult, lease: StreamLease, authorization: str) -> Answer:
        status, reason = int(refusal.status), code(refusal.description, int(refusal.status))
        found = verdict(status, reason)
        if found is Verdict.STALE_CREDENTIAL and self._token.refused(authorization):
            raise StaleCredential(reason, Delivery.NOT_PROCESSED)
        if found is Verdict.RECONNECT:
            lease.retire_connection(reason)
            raise Unavailable(reason, delivery(status) if status >= 500 else Delivery.NOT_PROCESSED)
        return reaction("apns", found, status, reason, since=_instant(refusal.timestamp))


def payload(push: Push) -> dict[str, Any]:
    """Shape a push for an iPhone."""
    return {
        "aps": {"alert": {"title": push.title, "body": push.body}, **look_in_aps(push)},
        "task_id": str(push.task_id),
        "kind": push.kind.value,
        "url": push.url,
    }


def look_in_aps(push: Push) -> dict[str, Any]:
    """Give what `aps` says of a push beside its text; Firebase takes the same for iPhones behind it."""
    look = push.look
    level = look.level if push.sounds else InterruptionLevel.PASSIVE
    fields = {
        "sound": (look.sound or None) if push.sounds else None,
        "interruption-level": level and level.value,
        "relevance-score": look.relevance,
        "category": look.category,
        "badge": push.badge,
        "thread-id": push.thread_id,
    }
    return {name: value for name, value in fields.items() if value is not None}


def sealed_payload(push: Push) -> dict[str, Any]:
    """Shape a push of an app whose texts are sealed: generic, with the text that the app's extension opens."""
    shaped = payload(replace(push, title=push.generic_title, body=push.generic_body))
    if push.public_key is not None:
        shaped["aps"]["mutable-content"] = 1
        shaped["sealed"] = sealed(push, push.public_key)
    return shaped


def request(push: Push, shape: Shape = payload) -> bytes:
    """Write the body of a request."""
    return fitted(push, lambda fitting: encoded(shape(fitting)), MAX_PAYLOAD)


def _instant(timestamp: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC) if isinstance(timestamp, int) else None
    except (ValueError, OverflowError, OSError):  # no date
        return None
