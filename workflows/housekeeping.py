"""Housekeeping, one run at a time, started by the schedules of `dispatch/schedules.py`."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

from workflows.fan_out import LOCAL_RETRY, LOCAL_WAIT

with workflow.unsafe.imports_passed_through():
    from activities.housekeeping import Purging, Sweeping, SweepOrphans, Swept, Walk, Walked
    from db.retention import Purged
    from domain.housekeeping import RetentionTarget

_PAGE_TIMEOUT = timedelta(minutes=2)
_MAX_PAGES = 50  # of pending push tasks in one sweep; the next one continues there
_MAX_ROUNDS = 100  # for each kind in one run, some two seconds each
_ALL = tuple(RetentionTarget)  # new ones are added at the end
_OF_RELEASES = {  # how many of them a release purged that has this patch, the latest release first
    "leftovers-of-events": 17,
    "leftovers-of-sign-outs": 15,
    "leftovers-of-preference-page": 14,
    "all-leftovers": 12,
    "more-leftovers": 7,
}
_AT_FIRST = 4

_Page = Callable[[Sweeping, Walk], Awaitable[Walked]]


@workflow.defn
class OrphanSweep:
    """One sweep by hand; workers sweep by themselves (`dispatch/sweeper.py`), those of earlier releases by schedule.

    Looks for what has lost its workflow: first dispatches fasts and messages again, so that their push tasks are not
    taken for orphans, then marks orphans dead.
    """

    @workflow.run
    async def run(self, ask: SweepOrphans) -> Swept:
        """Sweep from where the last sweep stopped."""
        last = workflow.get_last_completion_result(Swept) or Swept()
        sessions = await _walk(Sweeping.restart_sessions, Walk(ask.untouched, since=last.upto))
        handoffs = await _walk(Sweeping.restart_handoffs, Walk(ask.untouched))
        orphans = await _walk(Sweeping.mark_orphans_dead, Walk(ask.untouched, last.after), _MAX_PAGES)
        workflow.set_current_details(
            f"Without a workflow: {sessions.changed} fasts and {handoffs.changed} handoffs, to be started again;"
            f" {orphans.changed} push tasks, dead now."
        )
        return Swept(orphans.changed, sessions.changed, handoffs.changed, sessions.upto, orphans.after)


@workflow.defn
class Retention:
    """Purges what has been kept long enough."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """Purge until nothing is left; returns the number of rows of each kind."""
        purged = {what.value: await _purge(what) for what in _wanted()}
        workflow.set_current_details(", ".join(f"{count} {what}" for what, count in purged.items()))
        return purged


def _wanted() -> tuple[RetentionTarget, ...]:
    return _ALL[: next((count for patch, count in _OF_RELEASES.items() if workflow.patched(patch)), _AT_FIRST)]


async def _walk(page: _Page, walk: Walk, most_pages: int | None = None) -> Walked:
    """Walk page by page, to the end or a number of pages; returns the last one, with the total of changes."""
    changed, pages = 0, 0
    while True:
        walked = await workflow.execute_local_activity_method(
            page,
            walk,
            start_to_close_timeout=_PAGE_TIMEOUT,
            retry_policy=LOCAL_RETRY,
            local_retry_threshold=LOCAL_WAIT,
        )
        changed, pages = changed + walked.changed, pages + 1
        if walked.after is None or pages == most_pages:
            return replace(walked, changed=changed)
        walk = replace(walk, after=walked.after, upto=walked.upto)


async def _purge(what: RetentionTarget) -> int:
    count = 0
    for _ in range(_MAX_ROUNDS):
        purged: Purged = await workflow.execute_local_activity_method(
            Purging.purge,
            what,
            start_to_close_timeout=_PAGE_TIMEOUT,
            retry_policy=LOCAL_RETRY,
            local_retry_threshold=LOCAL_WAIT,
            summary=what.value,
        )
        count += purged.count
        if purged.is_all:
            break
    return count
