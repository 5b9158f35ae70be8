"""Firebase Cloud Messaging, HTTP v1: shapes the message, makes the call, judges the answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path, PurePath
from typing import Any

import structlog
from firebase_admin import messaging  # type: ignore[import-untyped]  # ships no types
from hpack import HeaderTuple

from domain.presentation import Look
from domain.push import Environment, Push
from push.apns.sender import look_in_aps
from push.credential_files import service_account
from push.fcm.errors import FcmRefusal, acceptance, refusal, verdict
from push.fcm.oauth import AccessToken
from push.http2.pool import DEFAULT_TIMEOUTS, Pool, StreamLease, Timeouts
from push.http2.proxy import DIRECT, Proxies
from push.payload_limit import encoded, fitted, sealed
from push.sender import (
    Answer,
    AnsweredUnavailable,
    Delivery,
    Send,
    StaleCredential,
    Throttled,
    Until,
)
from push.verdict import NOT_THE_PROVIDER, Verdict, reaction

log = structlog.get_logger()

MAX_PAYLOAD = 4096  # bytes
Shape = Callable[[Push], dict[str, Any]]
QUOTA_REST = timedelta(seconds=60)  # Google's advice, where a 429 names no time
ERROR_REST = timedelta(seconds=10)  # Google's advice: at least, before the first retry


@dataclass(frozen=True, slots=True)
class FcmAccount:
    """The service account that sends (its file names the project), and Google's address."""

    service_account_file: Path
    url: str = "https://fcm.googleapis.com"
    ca_file: Path | None = None
    encrypted: bool = False
    proxies: Proxies = DIRECT


class FcmSender:
    """The Sender of one app for Google. Made inside a running event loop."""

    def __init__(self, account: FcmAccount, *, connections: int = 4, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        sending = service_account(account.service_account_file.read_bytes())
        self._path = f"/v1/projects/{sending.project_id}/messages:send".encode()
        self._access = AccessToken(
            sending,
            ca_file=account.ca_file,
            timeout=timeouts.answer.total_seconds(),
            patience=timeouts.lease.total_seconds(),
            proxies=account.proxies,
        )
        self._shape = sealed_payload if account.encrypted else payload
        self._pool = Pool(
            account.url,
            ca_file=account.ca_file,
            connections=connections,
            timeouts=timeouts,
            proxy=account.proxies.towards(account.url),
        )

    @asynccontextmanager
    async def lease(
        self,
        environment: Environment,  # noqa: ARG002 (FCM has one token space)
        user_digest: int = 0,
        until: Until | None = None,
    ) -> AsyncIterator[Send]:
        """Wait for a good access token, and lease a stream on a live connection; raises ProviderTrouble."""
        token = await self._access.current()
        async with self._pool.lease(user_digest, until) as lease:
            yield partial(self._send, lease, token)

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        await asyncio.gather(self._pool.close(), self._access.close())

    async def _send(self, lease: StreamLease, token: str, push: Push) -> Answer:
        """Make exactly one call; raises ProviderTrouble."""
        headers = [
            HeaderTuple(b":method", b"POST"),
            HeaderTuple(b":scheme", b"https"),
            HeaderTuple(b":path", self._path),
            HeaderTuple(b":authority", lease.authority),
            HeaderTuple(b"authorization", f"Bearer {token}".encode()),
            HeaderTuple(b"content-type", b"application/json"),
        ]
        response = await lease.call(headers, request(push, self._shape))
        if response.status != 200:
            return self._refused(refusal(response), token, push.user_id)
        answer = acceptance(response)
        if answer is None:
            log.error("answer is not the provider's", provider="fcm", status=200)
            raise AnsweredUnavailable(NOT_THE_PROVIDER, Delivery.UNKNOWN).or_advised(ERROR_REST)
        self._access.accepted()
        return answer

    def _refused(self, refused: FcmRefusal, token: str, user_id: str) -> Answer:
        found = verdict(refused.status, refused.error_code)
        if found is Verdict.STALE_CREDENTIAL and self._access.refused(token, user_id):
            raise StaleCredential(refused.reason, Delivery.NOT_PROCESSED)
        try:
            return reaction("fcm", found, refused.status, refused.reason, retry_after=refused.retry_after)
        except (Throttled, AnsweredUnavailable) as trouble:
            raise trouble.or_advised(QUOTA_REST if isinstance(trouble, Throttled) else ERROR_REST) from None


def payload(push: Push) -> dict[str, Any]:
    """Shape a push for an Android phone, or an iPhone whose app registers with Firebase.

    The tag, not a collapse key, replaces a shown notification.
    """
    look = _look_on_android(push.look, sounds=push.sounds)
    shown = look | {"tag": push.collapse_key, "notification_count": push.badge}
    notification = {name: value for name, value in shown.items() if value is not None}
    return {
        "android": ({"notification": notification} if notification else {}) | _delivery(push),
        "data": {"kind": push.kind.value, "task_id": str(push.task_id), "url": push.url},
        "notification": {"body": push.body, "title": push.title},
        "token": push.token,
        "apns": _apns(push, {}),
    }


def sealed_payload(push: Push) -> dict[str, Any]:
    """Shape a push of an app whose texts are sealed: data alone, the one kind that a sleeping Android app receives.

    The app shows the notification itself, under the tag. An iPhone shows the generic text until the app's extension has
    opened the sealed one. Without a key the push is generic, and the phone shows it. The generic body is there as
    `body` and as `message`: expo-notifications shows `message` where the app has no code for that, in the channel
    `channelId`.
    """
    if push.public_key is None:
        return payload(replace(push, title=push.generic_title, body=push.generic_body))
    generic = {"title": push.generic_title, "body": push.generic_body}
    shown = generic | {"message": push.generic_body, "tag": push.collapse_key or str(push.task_id)}
    channel = push.look.channel if push.sounds else push.look.quiet_channel
    shown |= {} if channel is None else {"channelId": channel}
    shown |= {} if push.sounds else {"silent": "true"}
    data = {"task_id": str(push.task_id), "kind": push.kind.value, "url": push.url, **shown}
    return {
        "android": _delivery(push),
        "data": dict(sorted({**data, "sealed": sealed(push, push.public_key)}.items())),
        "token": push.token,
        "apns": _apns(push, {"alert": generic, "mutable-content": 1}),
    }


def request(push: Push, shape: Shape = payload) -> bytes:
    """Write the body of a request to `messages:send`."""
    more = {"validate_only": True} if push.validate_only else {}
    return fitted(push, lambda fitting: encoded({"message": shape(fitting), **more}), MAX_PAYLOAD)


@lru_cache(maxsize=256)
def _look_on_android(look: Look, *, sounds: bool) -> dict[str, Any]:
    """Write how an app's notifications look, checked by firebase-admin's types: once, since most pushes look the same.

    From Android 8 on the channel decides about the sound, before that the notification's own fields. Android names a
    file of `res/raw` without its extension.
    """
    noise: dict[str, str | None] = {"channel_id": look.quiet_channel, "priority": "low"}
    if sounds:
        noise = {"channel_id": look.channel, "sound": PurePath(look.sound).stem or None}
    shown = messaging.AndroidNotification(icon=look.icon, color=look.color, **noise)
    config = messaging.AndroidConfig(priority=look.priority.value, notification=shown)
    written = json.loads(str(messaging.Message(android=config, topic="any")))
    more = {"tag": None, "notification_count": None}  # of each push
    return dict(sorted({**written["android"].get("notification", {}), **more}.items()))


def _delivery(push: Push) -> dict[str, str]:
    return {"priority": push.look.priority.value, "ttl": f"{max(int(push.useful_for.total_seconds()), 0)}s"}


def _apns(push: Push, more: Mapping[str, object]) -> dict[str, Any]:
    """Set for Apple what our own pushes to it have; Firebase adds alert and data. Its types would take 10 µs more."""
    headers = {"apns-priority": "10", "apns-expiration": str(int(push.expires_at.timestamp()))}
    if push.collapse_key is not None:
        headers["apns-collapse-id"] = push.collapse_key
    return {"headers": headers, "payload": {"aps": {**look_in_aps(push), **more}}}
