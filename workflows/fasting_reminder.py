"""One durable workflow per fasting session: sleeps until each reminder is nearly due, then sends it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from workflows.fan_out import LOCAL_RETRY, LOCAL_TIMEOUT, LOCAL_WAIT, send_all
from workflows.status import Pushes, clock, of_reminders

with workflow.unsafe.imports_passed_through():
    from activities.reminders import Moment, OpenedReminder, OpenReminder, ReminderOpening, ReminderStatus, SessionState
    from domain.fasts import Reminder, SessionStatus
    from domain.naming import REMINDER_STATE_ATTRIBUTE
    from domain.push import FAILED, SentPush, TaskState

_REMINDER_STATE = SearchAttributeKey.for_keyword(REMINDER_STATE_ATTRIBUTE)


@workflow.defn
class FastingReminder:
    """Sends the reminders of one fasting session, unless the fast ends before.

    Its input and each signal have the session's whole state; the highest `rev` counts. It finishes when no reminder
    lies ahead. If the goal moves afterwards, the relay starts it again.
    """

    @workflow.init
    def __init__(self, state: SessionState) -> None:
        """Take the state at once: a signal may come before `run`."""
        self._state = state
        self._opened: dict[tuple[int, datetime], asyncio.Task[None]] = {}
        self._outcomes: dict[tuple[int, datetime], Pushes | str] = {}
        self._waiting_for = "its first task"
        self._ends_briefly = False

    @workflow.run
    async def run(self, _: SessionState) -> str:
        """Run until the session is over or its last reminder is settled; returns the outcome."""
        while True:
            wake_at = self._open_what_is_near()
            if not self._open_ones():
                if wake_at is None:
                    break
                if workflow.info().is_continue_as_new_suggested():  # the goal moved thousands of times
                    workflow.continue_as_new(self._state)
            await self._sleep(wake_at)
        for task in self._opened.values():
            task.result()
        outcome = self._outcome()
        if outcome != TaskState.ACCEPTED or not self._ends_briefly:  # an accepted one stays `scheduled`, and completed
            workflow.upsert_search_attributes([_REMINDER_STATE.value_set(outcome)])
        self._describe(f"nothing: {outcome}")
        return outcome

    @workflow.signal
    def reschedule(self, state: SessionState) -> None:
        """Take a new state: the goal was set or moved."""
        self._take(state)

    @workflow.signal
    def end(self, state: SessionState) -> None:
        """Take a new state: the user ended the fast."""
        self._take(state)

    @workflow.signal
    def cancel(self, state: SessionState) -> None:
        """Take a new state: the fast was cancelled."""
        self._take(state)

    @workflow.query
    def status(self) -> ReminderStatus:
        """Say what this workflow knows and waits for."""
        return ReminderStatus(
            session_id=self._state.session_id,
            rev=self._state.rev,
            status=self._state.status,
            waiting_for=self._waiting_for,
            reminders=tuple(self._described()),
        )

    def _take(self, state: SessionState) -> None:
        if state.rev > self._state.rev:
            self._state = state

    def _over(self) -> str | None:
        match self._state.status:
            case SessionStatus.ACTIVE:
                return None
            case SessionStatus.CANCELLED:
                return "session_cancelled"
            case _:
                return "session_ended"

    def _over_for(self, reminder: Reminder) -> str | None:
        if workflow.now() < reminder.due_at:  # a moved goal may move back; held sends check the database when due
            return self._over()
        moved = self._state.ends_at - timedelta(minutes=reminder.minutes) != reminder.due_at
        return self._over() or ("goal_moved" if moved else None)

    def _open_what_is_near(self) -> datetime | None:
        """Open each reminder that has to be armed; returns when the next one has to be."""
        if self._over():
            return None
        ahead: list[datetime] = []
        for reminder in self._state.reminders:
            key = (reminder.minutes, reminder.due_at)
            wake_at = reminder.due_at - timedelta(seconds=self._state.arm_seconds)
            if key in self._opened:
                continue
            if wake_at <= workflow.now():
                self._opened[key] = asyncio.create_task(self._remind(reminder))
            else:
                ahead.append(wake_at)
        return min(ahead, default=None)

    async def _sleep(self, wake_at: datetime | None) -> None:
        """Sleep until the next reminder has to be armed, a signal brings news, or an opened reminder is settled."""
        rev, open_ones = self._state.rev, self._open_ones()
        self._describe(f"the next reminder, to be armed at {clock(wake_at)}" if wake_at else "the sends under way")
        await sleep_until(wake_at, lambda: self._state.rev != rev or self._open_ones() != open_ones)

    def _open_ones(self) -> int:
        return sum(not task.done() for task in self._opened.values())

    async def _remind(self, reminder: Reminder) -> None:
        moment = Moment.ARMING if workflow.now() < reminder.due_at else Moment.DUE
        opened = await self._open(reminder, moment)
        if moment is Moment.ARMING and not opened.sends:
            opened = await self._open_when_due(reminder)
        pushes = Pushes()
        while opened.sends:
            pushes.begin(opened.sends)
            self._note(reminder, pushes)
            over = partial(self._over_for, reminder)
            on_sent = partial(self._note_end, pushes)
            sent = await send_all(opened.sends, reminder.due_at, reminder.expires_at, over, on_sent)
            if self._ends_briefly and self._is_last() and all(each.reaches_all for each in sent):
                return
            opened = await self._open(reminder, Moment.DUE)  # for phones registered after arming
        if not pushes.states:
            self._note(reminder, opened.withheld or "no_active_token")

    async def _open_when_due(self, reminder: Reminder) -> OpenedReminder:
        """Open it at the due instant, since there was no device to arm; then it enters at least the log."""
        left = reminder.due_at - workflow.now()
        if left > timedelta(0):
            until = f"due at {clock(reminder.due_at)}"
            with suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._over() is not None, timeout=left, timeout_summary=until)
        return OpenedReminder(withheld=self._over()) if self._over() else await self._open(reminder, Moment.DUE)

    def _is_last(self) -> bool:
        """Whether the run ends with the one reminder that is open: only then may it end as older code would not."""
        ahead = any((each.minutes, each.due_at) not in self._opened for each in self._state.reminders)
        return self._open_ones() == 1 and (not ahead or self._over() is not None)

    async def _open(self, reminder: Reminder, moment: Moment) -> OpenedReminder:
        opened = await workflow.execute_local_activity_method(
            ReminderOpening.open_reminder,
            OpenReminder(self._state.session_id, reminder.minutes, reminder.due_at, moment),
            start_to_close_timeout=LOCAL_TIMEOUT,
            retry_policy=LOCAL_RETRY,
            local_retry_threshold=LOCAL_WAIT,
            summary=f"{reminder.minutes} minutes before the end, due at {clock(reminder.due_at)}",
        )
        self._ends_briefly = opened.ends_briefly or self._ends_briefly
        return opened

    def _note(self, reminder: Reminder, what: Pushes | str) -> None:
        self._outcomes[reminder.minutes, reminder.due_at] = what
        self._describe(self._waiting_for)

    def _note_end(self, pushes: Pushes, sent: SentPush) -> None:
        pushes.end(sent)
        self._describe(self._waiting_for)

    def _describe(self, waiting_for: str) -> None:
        self._waiting_for = waiting_for
        workflow.set_current_details(of_reminders(self._state, waiting_for, self._outcomes, self._over() or "asleep"))

    def _described(self) -> Iterator[str]:
        for (minutes, due_at), what in self._outcomes.items():
            for push, stands in [("no push", what)] if isinstance(what, str) else what.rows():
                yield f"{minutes} min before the end ({clock(due_at)}): {push} {stands}"

    def _outcome(self) -> str:
        """Sum up for the search attribute: the best result of any send, or else why there was none."""
        states = {state for what in self._outcomes.values() if isinstance(what, Pushes) for state in what.states}
        for state in (TaskState.ACCEPTED, *FAILED):
            if state in states:
                return state
        return self._over() or ("withheld" if self._outcomes else "nothing_due")


async def sleep_until(wake_at: datetime | None, is_updated: Callable[[], bool]) -> None:
    """Sleep until an instant (None: without end), or until `is_updated` is true: then the caller computes a new one."""
    if wake_at is None:
        await workflow.wait_condition(is_updated)
        return
    try:
        await workflow.wait_condition(
            is_updated, timeout=wake_at - workflow.now(), timeout_summary=f"until {clock(wake_at)}"
        )
    except TimeoutError:
        return
