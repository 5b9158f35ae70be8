"""Firebase Cloud Messaging, HTTP v1: shapes the message, makes the call, reads the answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never

import structlog
from firebase_admin import messaging  # type: ignore[import-untyped]  # ships no types
from hpack import HeaderTuple

from domain.push import Environment, Push
from push.credential_files import service_account
from push.fcm_access import AccessToken
from push.fcm_answer import FcmRefusal, acceptance, refusal
from push.fcm_verdicts import verdict
from push.fitting import encoded, fitted
from push.http2_pool import DEFAULT_TIMEOUTS, Place, Pool, Timeouts
from push.http2_proxy import STRAIGHT, Proxies
from push.sealing import sealed
from push.sender import (
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
from push.verdict import EXTENTS, NOT_THE_PROVIDER, Verdict, fate

log = structlog.get_logger()

PAYLOAD_AT_MOST = 4096  # bytes
Shape = Callable[[Push], messaging.Message]
QUOTA_REST = timedelta(seconds=60)  # Google: where a 429 names no time
ERROR_REST = timedelta(seconds=10)  # Google: at least, before the first retry


@dataclass(frozen=True, slots=True)
class FcmAccount:
    """Whose service account sends (its file names the project), and where Google is."""

    service_account_file: Path
    url: str = "https://fcm.googleapis.com"
    ca_file: Path | None = None
    encrypted: bool = False
    proxies: Proxies = STRAIGHT


class FcmSender:
    """The Sender for Google. Made inside a running event loop, one per process: its token is shared."""

    def __init__(self, account: FcmAccount, *, connections: int = 4, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        sending = service_account(account.service_account_file.read_bytes())
        self._path = f"/v1/projects/{sending.project_id}/messages:send".encode()
        self._access = AccessToken(
            sending,
            ca_file=account.ca_file,
            timeout=timeouts.answer.total_seconds(),
            patience=timeouts.slot.total_seconds(),
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
    async def slot(self, environment: Environment) -> AsyncIterator[Slot]:  # noqa: ARG002 (FCM has one token space)
        """Wait for a good access token and room on a live connection."""
        token = await self._access.current()
        async with self._pool.place() as place:
            yield FcmSlot(place, self._access, token, self._headers(token), self._shape)

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        await asyncio.gather(self._pool.close(), self._access.close())

    def _headers(self, token: str) -> list[HeaderTuple]:
        return [
            HeaderTuple(b":method", b"POST"),
            HeaderTuple(b":scheme", b"https"),
            HeaderTuple(b":path", self._path),
            HeaderTuple(b":authority", self._pool.authority),
            HeaderTuple(b"authorization", f"Bearer {token}".encode()),
            HeaderTuple(b"content-type", b"application/json"),
        ]


class FcmSlot:
    """Leave to make one call to Google."""

    def __init__(self, place: Place, access: AccessToken, token: str, headers: list[HeaderTuple], shape: Shape) -> None:
        self._place = place
        self._access = access
        self._token = token
        self._headers = headers
        self._shape = shape

    async def send(self, push: Push) -> Answer:
        """Make exactly one call; raises ProviderTrouble."""
        response = await self._place.call(self._headers, request(push, self._shape))
        if response.status != 200:
            return self._refused(refusal(response))
        answer = acceptance(response)
        if answer is None:
            log.error("answer is not the provider's", provider="fcm", status=200)
            raise Unavailable(NOT_THE_PROVIDER, Fate.UNKNOWN, retry_after=ERROR_REST)
        self._access.accepted()
        return answer

    def _refused(self, refused: FcmRefusal) -> Answer:
        status, reason = refused.status, refused.reason
        match verdict(status, refused.word):
            case Verdict.DEAD_TOKEN:
                return Unregistered(reason, None)
            case Verdict.DOUBTFUL_TOKEN:
                return Doubtful(reason)
            case Verdict.FOREIGN_TOKEN:
                log.error("token of another project", provider="fcm", status=status, reason=reason)
                return Foreign(reason)
            case Verdict.OUR_BUG:
                log.error("provider rejected our push", provider="fcm", status=status, reason=reason)
                return Rejected(reason)
            case Verdict.STALE_CREDENTIAL if self._access.refused(self._token):
                raise StaleCredential(reason, Fate.NEVER_PROCESSED)
            case Verdict.MISCONFIGURED | Verdict.STALE_CREDENTIAL:
                log.error("provider misconfigured", provider="fcm", status=status, reason=reason)
                raise Misconfigured(reason)
            case (Verdict.THROTTLED | Verdict.OVERDONE) as throttle:
                raise Throttled(reason, EXTENTS[throttle], retry_after=refused.retry_after or QUOTA_REST)
            case Verdict.TRANSIENT | Verdict.RECONNECT:
                raise Unavailable(reason, fate(status), retry_after=refused.retry_after or ERROR_REST)
            case never:
                assert_never(never)


def payload(push: Push) -> messaging.Message:
    """Shape a push for an Android phone, or an iPhone whose app registers with Firebase.

    The tag, not collapse_key, is what replaces a shown notification on Android; the `apns` block is what Apple is told.
    """
    message = _message(push, {}, messaging.AndroidNotification(tag=push.collapse_key, sound="default"))
    message.notification = messaging.Notification(title=push.title, body=push.body)
    message.apns = _apns(push, messaging.Aps(sound="default", thread_id=push.thread_id))
    return message


def sealed_payload(push: Push) -> messaging.Message:
    """Shape a push of an app whose texts are sealed: data alone, the one kind that a sleeping Android app is handed.

    The app itself shows the line, under the tag; an iPhone shows the generic text until the app's extension has opened
    the sealed one. Without a key there is nothing to open, and the phone shows it.
    """
    if push.public_key is None:
        return payload(replace(push, title=push.generic_title, body=push.generic_body))
    shown = {"title": push.generic_title, "body": push.generic_body, "tag": push.collapse_key or str(push.task_id)}
    message = _message(push, {**shown, "sealed": sealed(push, push.public_key)}, None)
    alert = messaging.ApsAlert(title=push.generic_title, body=push.generic_body)
    aps = messaging.Aps(alert=alert, sound="default", thread_id=push.thread_id, mutable_content=True)
    message.apns = _apns(push, aps)
    return message


def request(push: Push, shape: Shape = payload) -> bytes:
    """Put a message into the envelope of `messages:send`."""
    return fitted(push, lambda fitting: _encoded(shape(fitting), fitting), PAYLOAD_AT_MOST)


def _message(
    push: Push, more: Mapping[str, str], notification: messaging.AndroidNotification | None
) -> messaging.Message:
    left = int((push.expires_at - datetime.now(UTC)).total_seconds())
    message = messaging.Message(
        android=messaging.AndroidConfig(
            priority="high", ttl=timedelta(seconds=max(left, 0)), notification=notification
        ),
        data={"task_id": str(push.task_id), "kind": push.kind.value, "url": push.url, **more},
    )
    message.token = push.token  # the constructor warns: it would rather have a Firebase installation id
    return message


def _apns(push: Push, aps: messaging.Aps) -> messaging.APNSConfig:
    """Tell Apple what it would be told directly; Firebase adds alert and data."""
    headers = {"apns-priority": "10", "apns-expiration": str(int(push.expires_at.timestamp()))}
    if push.collapse_key is not None:
        headers["apns-collapse-id"] = push.collapse_key
    return messaging.APNSConfig(headers=headers, payload=messaging.APNSPayload(aps))


def _encoded(message: messaging.Message, push: Push) -> bytes:
    envelope = {"message": json.loads(str(message))}  # firebase-admin would escape all that is not ASCII
    return encoded(envelope | {"validate_only": True} if push.validate_only else envelope)
