"""The senders that know their provider: ours, plain aioapns, and firebase-admin's two fastest ways."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import firebase_admin  # type: ignore[import-untyped]  # ships no types
import requests.adapters
from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsTLSClientProtocol
from firebase_admin import _http_client, credentials, messaging

from bench.providers_target import Run, Target, in_batches, in_threads, one_by_one
from domain.push import Environment, Push
from push.apns import sender as apns
from push.fcm import sender as fcm
from push.sender import Accepted, Sender


@asynccontextmanager
async def our_apns(target: Target) -> AsyncIterator[Run]:
    """Send over push/apns/sender.py and its transport."""
    account = apns.ApnsAccount(
        key_file=target.apns_key_file,
        key_id=target.apns_key_id,
        team_id=target.apns_team_id,
        topic=target.apns_topic,
        url=target.url,
        sandbox_url=target.url,
        ca_file=target.ca_file,
    )
    sender = apns.ApnsSender(account)
    yield one_by_one(_LeasedCalls(sender))
    await sender.close()


@asynccontextmanager
async def our_fcm(target: Target) -> AsyncIterator[Run]:
    """Send over push/fcm/sender.py and its transport."""
    account = fcm.FcmAccount(service_account_file=target.service_account_file, url=target.url, ca_file=target.ca_file)
    sender = fcm.FcmSender(account)
    yield one_by_one(_LeasedCalls(sender))
    await sender.close()


@asynccontextmanager
async def plain_aioapns(target: Target) -> AsyncIterator[Run]:
    """Send the same over aioapns as it comes: its own pool, its own connections."""
    protocol = type("Local", (APNsTLSClientProtocol,), {"APNS_SERVER": "127.0.0.1", "APNS_PORT": target.port})
    tls = ssl.create_default_context(cafile=target.ca_file)
    tls.set_alpn_protocols(["h2"])
    client = APNs(
        key=target.apns_key_file.read_text(),
        key_id=target.apns_key_id,
        team_id=target.apns_team_id,
        topic=target.apns_topic,
        ssl_context=tls,
    )
    client.pool.protocol_class = protocol

    async def send(push: Push) -> None:
        request = NotificationRequest(
            push.token,
            apns.payload(push),
            notification_id=str(push.attempt_id),
            time_to_live=3600,
            priority=10,
            collapse_key=push.collapse_key,
            push_type=PushType.ALERT,
        )
        result = await client.send_notification(request)
        if not result.is_successful:
            raise RuntimeError(result.description)

    yield one_by_one(send)
    client.pool.close()


@asynccontextmanager
async def firebase_send(target: Target) -> AsyncIterator[Run]:
    """Call `messaging.send`, which blocks, in as many threads."""
    app = _firebase(target)
    yield in_threads(lambda push: messaging.send(_message(push), app=app))


@asynccontextmanager
async def firebase_send_each_async(target: Target) -> AsyncIterator[Run]:
    """Call `messaging.send_each_async` with batch after batch."""
    app = _firebase(target)

    async def send(batch: list[Push]) -> int:
        sent = await messaging.send_each_async([_message(push) for push in batch], app=app)
        return int(sent.success_count)

    yield in_batches(send)


class _LeasedCalls:
    """A lease and a call for each push, as in the service."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def __call__(self, push: Push) -> None:
        async with self._sender.lease(Environment.PRODUCTION) as send:
            answer = await send(push)
        if not isinstance(answer, Accepted):
            raise RuntimeError(answer.reason)  # noqa: TRY004 (a refusal, no wrong type)


def _firebase(target: Target) -> firebase_admin.App:
    """Point firebase-admin, which has no setting for it, at our server, with the connection pool it has for Google.

    It is not deleted: that cannot be done inside a running loop, and the process ends anyway.
    """
    messaging._MessagingService.FCM_URL = target.url + "/v1/projects/{0}/messages:send"  # noqa: SLF001
    app = firebase_admin.initialize_app(credentials.Certificate(str(target.service_account_file)))
    adapter = requests.adapters.HTTPAdapter(
        pool_connections=100,
        pool_maxsize=100,
        max_retries=_http_client.DEFAULT_RETRY_CONFIG,
    )
    messaging._get_messaging_service(app)._client.session.mount(target.url, adapter)  # noqa: SLF001
    return app


def _message(push: Push) -> messaging.Message:
    """Build a message as one does with firebase-admin."""
    shown = messaging.AndroidNotification(tag=push.collapse_key, channel_id=push.look.channel, sound=push.look.sound)
    built = messaging.Message(
        notification=messaging.Notification(title=push.title, body=push.body),
        android=messaging.AndroidConfig(priority=push.look.priority.value, ttl=3600, notification=shown),
        data={"task_id": str(push.task_id), "kind": push.kind.value, "url": push.url},
    )
    built.token = push.token  # the constructor warns: it prefers a Firebase installation id
    return built
