"""Follow the feed for one webhook: read a batch, send it, record what came of it, and wait for more."""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import httpx
import structlog
from temporalio import activity

from db import events, webhook_deliveries, webhooks
from db.engine import Sessions
from db.webhook_deliveries import Recorded
from domain.events import SUSPICIOUS, Attempted, Outgoing, Webhook
from webhooks.sender import AT_ONCE, WebhookSender

FOLLOWS_FOR = timedelta(minutes=10)  # in one activity
HEARTBEAT = timedelta(seconds=60)  # a lost worker is noticed after this; each heartbeat may be billed
_WAITS_AGAIN_AFTER = 10.0  # seconds
_QUIET_LOOKS = 20  # tenths of a second at most that a batch waits for pushes that are due

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FollowFeed:
    """The webhook to follow the feed for: the input of `WebhookFollower`."""

    webhook_id: UUID


@dataclass(frozen=True, slots=True)
class Followed:
    """Why an activity stopped following."""

    is_over: bool = False  # the webhook was deleted or disabled
    again_in: float = 0.0  # seconds; above 0, so many deliveries failed that sending rests


@dataclass(frozen=True, slots=True)
class WebhookDependencies:
    """What all webhooks of a process share."""

    allow_private: bool = False
    within: float = 15.0  # seconds for one request
    looks_every: float = 1.0  # seconds, while nothing happens
    follows_for: timedelta = FOLLOWS_FOR
    is_busy: Callable[[], bool] = lambda: False  # pushes are due, which go first
    verify: ssl.SSLContext = field(default_factory=httpx.create_ssl_context)  # heeds SSL_CERT_FILE


class FeedFollowing:
    """The activity of `WebhookFollower`; where it is repeated, some events may be sent again under the same id."""

    def __init__(self, sessions: Sessions, dependencies: WebhookDependencies) -> None:
        self._sessions = sessions
        self._dependencies = dependencies
        self._waits_again_at = 0.0  # by the monotonic clock

    @activity.defn
    async def follow_feed(self, ask: FollowFeed) -> Followed:
        """Send events as they come, until some minutes are over, the worker stops, or too many deliveries fail."""
        until = time.monotonic() + self._dependencies.follows_for.total_seconds()
        stopped = asyncio.ensure_future(activity.wait_for_worker_shutdown())
        beating = asyncio.ensure_future(_beat())
        try:
            async with WebhookSender(
                allow_private=self._dependencies.allow_private,
                within=self._dependencies.within,
                verify=self._dependencies.verify,
            ) as sender:
                while time.monotonic() < until and not stopped.done():
                    followed = await self._look(ask.webhook_id, sender, stopped.done)
                    if followed is None:
                        await asyncio.wait({stopped}, timeout=self._dependencies.looks_every)
                    elif followed.is_over or followed.again_in:
                        return followed
            return Followed()
        finally:
            stopped.cancel()
            beating.cancel()

    async def _look(
        self, webhook_id: UUID, sender: WebhookSender, is_stopped: Callable[[], bool] = lambda: False
    ) -> Followed | None:
        """Send what there is, and begin no request once stopped; None where there is nothing."""
        async with self._sessions() as db:
            if await webhook_deliveries.is_idle(db, webhook_id):
                return None
        await events.number(self._sessions)
        async with self._sessions.begin() as db:
            webhook = await webhooks.find(db, webhook_id)
            if webhook is None:
                return Followed(is_over=True)
            batch = await webhook_deliveries.next_batch(db, webhook)
            if not batch.items:
                await webhook_deliveries.note_followed(db, webhook, batch.until)
                return Followed() if batch.has_more else None
        await self._let_pushes_go_first()
        results = await _send_all(sender, webhook, batch.items, is_stopped)
        async with self._sessions.begin() as db:
            recorded = await webhook_deliveries.record(db, webhook, batch, results)
        _log(webhook_id, results, recorded)
        rests_for = recorded.rests_for
        return Followed(recorded.is_over, 0.0 if rests_for is None else rests_for.total_seconds())

    async def _let_pushes_go_first(self) -> None:
        """Wait while pushes are due at one instant. Where that is always so, webhooks get most of the time."""
        if time.monotonic() < self._waits_again_at:
            return
        for _ in range(_QUIET_LOOKS):
            if not self._dependencies.is_busy():
                return
            await asyncio.sleep(0.1)
        self._waits_again_at = time.monotonic() + _WAITS_AGAIN_AFTER


async def _send_all(
    sender: WebhookSender, webhook: Webhook, items: Sequence[Outgoing], is_stopped: Callable[[], bool]
) -> list[tuple[Outgoing, Attempted]]:
    """Send a batch, some at a time; stops early where one after the other fails. In the order in which they end."""
    waiting, results, failed_in_a_row = list(reversed(items)), [], 0

    async def send_some() -> None:
        nonlocal failed_in_a_row
        while waiting and failed_in_a_row < SUSPICIOUS and not is_stopped():
            outgoing = waiting.pop()
            attempted = await sender.send(webhook, outgoing)
            results.append((outgoing, attempted))
            failed_in_a_row = 0 if attempted.reason is None else failed_in_a_row + 1

    await asyncio.gather(*(send_some() for _ in range(min(AT_ONCE, len(items)))))
    return results


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT.total_seconds() / 4)  # the SDK sends fewer


def _log(webhook_id: UUID, results: Sequence[tuple[Outgoing, Attempted]], recorded: Recorded) -> None:
    failed = [result for _, result in results if result.reason is not None]
    if failed:
        rests_for = None if recorded.rests_for is None else round(recorded.rests_for.total_seconds(), 1)
        last = {"reason": failed[-1].reason, "status": failed[-1].status}
        log.warning("webhook deliveries failed", webhook_id=str(webhook_id), count=len(failed), rests=rests_for, **last)
