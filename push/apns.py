"""Apple Push Notification service: shapes the payload, makes the call, reads the answer."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_never

import structlog
from aioapns.common import NotificationResult

from domain.push import Environment, Push
from push.apns_transport import ApnsPlace, ApnsPool, ApnsRequest, provider_token
from push.fitting import fitted
from push.http2_pool import DEFAULT_TIMEOUTS, Pool, Timeouts
from push.http2_proxy import STRAIGHT, Proxies
from push.sealing import sealed
from push.sender import (
    Accepted,
    Answer,
    Doubtful,
    Fate,
    Foreign,
    Misconfigured,
    Rejected,
    Slot,
    StaleCredential,
    Throttled,
    Unavailable,
    Unregistered,
)
from push.verdict import EXTENTS, Verdict, code

log = structlog.get_logger()

PAYLOAD_AT_MOST = 4096  # bytes
Shape = Callable[[Push], dict[str, Any]]
DEVICE_TOKEN = re.compile(r"[0-9a-fA-F]{2,400}")

# https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
VERDICTS: dict[tuple[int, str], Verdict] = {
    (400, "BadDeviceToken"): Verdict.DOUBTFUL_TOKEN,
    (400, "DeviceTokenNotForTopic"): Verdict.FOREIGN_TOKEN,
    (400, "BadTopic"): Verdict.MISCONFIGURED,
    (400, "MissingTopic"): Verdict.MISCONFIGURED,
    (400, "TopicDisallowed"): Verdict.MISCONFIGURED,
    (400, "IdleTimeout"): Verdict.RECONNECT,
    (400, "BadCollapseId"): Verdict.OUR_BUG,
    (400, "BadExpirationDate"): Verdict.OUR_BUG,
    (400, "BadMessageId"): Verdict.OUR_BUG,
    (400, "BadPriority"): Verdict.OUR_BUG,
    (400, "DuplicateHeaders"): Verdict.OUR_BUG,
    (400, "InvalidPushType"): Verdict.OUR_BUG,
    (400, "MissingDeviceToken"): Verdict.OUR_BUG,
    (400, "PayloadEmpty"): Verdict.OUR_BUG,
    (403, "BadCertificate"): Verdict.MISCONFIGURED,
    (403, "BadCertificateEnvironment"): Verdict.MISCONFIGURED,
    (403, "BadEnvironmentKeyIdInToken"): Verdict.MISCONFIGURED,
    (403, "ExpiredProviderToken"): Verdict.STALE_CREDENTIAL,
    (403, "Forbidden"): Verdict.MISCONFIGURED,
    (403, "InvalidProviderToken"): Verdict.MISCONFIGURED,
    (403, "MissingProviderToken"): Verdict.MISCONFIGURED,
    (403, "UnrelatedKeyIdInToken"): Verdict.RECONNECT,
    (404, "BadPath"): Verdict.OUR_BUG,
    (405, "MethodNotAllowed"): Verdict.OUR_BUG,
    (410, "ExpiredToken"): Verdict.DEAD_TOKEN,
    (410, "Unregistered"): Verdict.DEAD_TOKEN,
    (413, "PayloadTooLarge"): Verdict.OUR_BUG,
    (429, "TooManyProviderTokenUpdates"): Verdict.OVERDONE,
    (429, "TooManyRequests"): Verdict.THROTTLED,
    (500, "InternalServerError"): Verdict.TRANSIENT,
    (503, "ServiceUnavailable"): Verdict.TRANSIENT,
    (503, "Shutdown"): Verdict.RECONNECT,
}
BY_STATUS: dict[int, Verdict] = {  # for reasons that the table does not know yet; anything else is our bug
    403: Verdict.MISCONFIGURED,
    410: Verdict.DEAD_TOKEN,
    429: Verdict.THROTTLED,
}


@dataclass(frozen=True, slots=True)
class ApnsAccount:
    """Whose key signs for which app, and where Apple is."""

    key_file: Path
    key_id: str
    team_id: str
    topic: str
    url: str = "https://api.push.apple.com"
    sandbox_url: str = "https://api.sandbox.push.apple.com"
    ca_file: Path | None = None
    encrypted: bool = False
    proxies: Proxies = STRAIGHT


class ApnsSender:
    """The Sender of one app for Apple. Made inside a running event loop; apps with the same key share its token."""

    def __init__(self, account: ApnsAccount, *, connections: int = 8, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        token = provider_token(account.key_file.read_text(), account.key_id, account.team_id)
        addresses = {Environment.PRODUCTION: account.url, Environment.SANDBOX: account.sandbox_url}
        self._topic = account.topic
        self._shape = sealed_payload if account.encrypted else payload
        self._pools = {
            environment: ApnsPool(
                Pool(
                    url,
                    ca_file=account.ca_file,
                    connections=connections,
                    timeouts=timeouts,
                    proxy=account.proxies.towards(url),
                ),
                provider_token=token,
                topic=account.topic,
            )
            for environment, url in addresses.items()
        }

    @asynccontextmanager
    async def slot(self, environment: Environment) -> AsyncIterator[Slot]:
        """Wait for room on a live connection."""
        async with self._pools[environment].place() as place:
            yield ApnsSlot(place, self._topic, self._shape)

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))


class ApnsSlot:
    """Leave to make one call to Apple."""

    def __init__(self, place: ApnsPlace, topic: str, shape: Shape) -> None:
        self._place = place
        self._topic = topic
        self._shape = shape

    async def send(self, push: Push) -> Answer:
        """Make exactly one call; raises ProviderTrouble."""
        if not DEVICE_TOKEN.fullmatch(push.token):
            return Rejected("MalformedDeviceToken")  # it would not even make a path
        result = await self._place.send_notification(request(push, self._topic, self._shape))
        if result.is_successful:
            return Accepted(result.notification_id)
        return self._refused(result)

    def _refused(self, result: NotificationResult) -> Answer:
        status, reason = int(result.status), code(result.description, int(result.status))
        match verdict(status, reason):
            case Verdict.DEAD_TOKEN:
                return Unregistered(reason, _instant(result.timestamp))
            case Verdict.DOUBTFUL_TOKEN:
                return Doubtful(reason)
            case Verdict.FOREIGN_TOKEN:
                log.error("token of another topic", provider="apns", status=status, reason=reason)
                return Foreign(reason)
            case Verdict.OUR_BUG:
                log.error("provider rejected our push", provider="apns", status=status, reason=reason)
                return Rejected(reason)
            case Verdict.STALE_CREDENTIAL if self._place.renew_provider_token():
                raise StaleCredential(reason, Fate.NEVER_PROCESSED)
            case Verdict.MISCONFIGURED | Verdict.STALE_CREDENTIAL:
                log.error("provider misconfigured", provider="apns", status=status, reason=reason)
                raise Misconfigured(reason)
            case (Verdict.THROTTLED | Verdict.OVERDONE) as throttle:
                raise Throttled(reason, EXTENTS[throttle])
            case Verdict.RECONNECT:
                self._place.retire_connection(reason)
                raise Unavailable(reason, Fate.UNKNOWN if status >= 500 else Fate.NEVER_PROCESSED)
            case Verdict.TRANSIENT:
                raise Unavailable(reason, Fate.UNKNOWN)
            case never:
                assert_never(never)


def verdict(status: int, reason: str) -> Verdict:
    """Look a refusal up; one that the table does not know is judged by its status, and told."""
    known = VERDICTS.get((status, reason))
    if known:
        return known
    log.error("unknown provider reason", provider="apns", status=status, reason=reason)
    return Verdict.TRANSIENT if status >= 500 else BY_STATUS.get(status, Verdict.OUR_BUG)


def payload(push: Push) -> dict[str, Any]:
    """Shape a push for an iPhone."""
    return {
        "aps": {
            "alert": {"title": push.title, "body": push.body},
            "sound": "default",
            "thread-id": push.thread_id,
        },
        "task_id": str(push.task_id),
        "kind": push.kind.value,
        "url": push.url,
    }


def sealed_payload(push: Push) -> dict[str, Any]:
    """Shape a push of an app whose texts are sealed: generic, with the text for the app's service extension to open."""
    shaped = payload(replace(push, title=push.generic_title, body=push.generic_body))
    if push.public_key is not None:
        shaped["aps"]["mutable-content"] = 1
        shaped["sealed"] = sealed(push, push.public_key)
    return shaped


def request(push: Push, topic: str, shape: Shape = payload) -> ApnsRequest:
    """Address a push to an iPhone."""
    return ApnsRequest(
        token=push.token,
        apns_id=str(push.attempt_id),
        topic=topic,
        collapse_key=push.collapse_key,
        expiration=int(push.expires_at.timestamp()),
        body=fitted(push, lambda fitting: _encoded(shape(fitting)), PAYLOAD_AT_MOST),
    )


def _encoded(shaped: dict[str, Any]) -> bytes:
    return json.dumps(shaped, ensure_ascii=False, separators=(",", ":")).encode()


def _instant(timestamp: int | None) -> datetime | None:
    return datetime.fromtimestamp(timestamp / 1000, UTC) if isinstance(timestamp, int) else None
