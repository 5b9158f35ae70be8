"""One workflow per webhook: has the feed followed by one activity after the other, and rests while too much fails."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.webhooks import FOLLOWS_FOR, HEARTBEAT, FeedFollowing, Followed, FollowFeed
    from domain.naming import WEBHOOK_QUEUE

_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))
_STOPS_WITHIN = timedelta(minutes=5)  # a last batch, and its record


@workflow.defn
class WebhookFollower:
    """Sends the events of the feed to one webhook. An event is no event of this workflow, so it costs none.

    Idle, it costs an activity every ten minutes and its heartbeats.
    """

    @workflow.init
    def __init__(self, ask: FollowFeed) -> None:  # noqa: ARG002 -- the SDK wants the same parameters as `run`
        """Prepare for signals, which may come before `run`."""
        self._looks_again = True
        self._is_lost = False

    @workflow.run
    async def run(self, ask: FollowFeed) -> str:
        """Follow until the webhook is deleted or disabled."""
        while True:
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(ask)
            self._looks_again = False
            workflow.set_current_details("Follows the feed.")
            followed = await self._follow(ask)
            if followed.is_over and not self._looks_again:
                return "deleted or disabled"
            if followed.again_in and not self._looks_again:
                workflow.set_current_details("Rests, because deliveries failed one after the other.")
                await self._rest(timedelta(seconds=followed.again_in))

    async def _follow(self, ask: FollowFeed) -> Followed:
        self._is_lost = False
        following = workflow.start_activity_method(
            FeedFollowing.follow_feed,
            ask,
            task_queue=WEBHOOK_QUEUE,
            summary="follow the feed",
            start_to_close_timeout=FOLLOWS_FOR + _STOPS_WITHIN,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=_RETRY,
        )
        await workflow.wait_condition(lambda: following.done() or self._is_lost)
        if following.done():
            return await following
        following.cancel()
        with suppress(ActivityError, asyncio.CancelledError):
            await following
        return Followed()

    async def _rest(self, wait: timedelta) -> None:
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._looks_again, timeout=wait, timeout_summary="rest")

    @workflow.signal
    def look_again(self) -> None:
        """End a rest: the webhook was changed, is tested, or is to be redriven."""
        self._looks_again = True

    @workflow.signal
    def follow_elsewhere(self) -> None:
        """Give up the activity of a worker that was lost, before Temporal misses its heartbeat."""
        self._is_lost = True
