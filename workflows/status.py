"""What Temporal's Web UI shows of a workflow: what it waits for, and a table of its pushes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

with workflow.unsafe.imports_passed_through():
    from activities.reminders import SessionState
    from domain.push import PlannedSend, Provider, SentPush, TaskState

# Shown with each workflow of its kind.
ABOUT_REMINDERS = (
    "Sleeps until each reminder of one fast is nearly due, then sends it. Ends by itself, or when the fast ends."
)
ABOUT_HANDOFF = "Pushes one message to the phones that have not got it from their open stream after some seconds."
ABOUT_PAGE = "Some of the pushes of one message. Its parent adds up the results."
ABOUT_REDRIVE = "Sends a dead push again, because a person asked for it. All checks are made again."
ABOUT_TEST_PUSH = "Sends a test push to phones of one person, because support asked for it. All checks are made."
ABOUT_WEBHOOK = "Sends the events of the feed to one webhook. Ends when the webhook is deleted or disabled."

MAX_ROWS = 10  # more pushes are shown as counts


class Pushes:
    """The pushes of one fan-out, and their present states."""

    def __init__(self) -> None:
        self.states: set[TaskState] = set()  # of finished ones
        self._by_task: dict[UUID, tuple[Provider, str]] = {}

    def begin(self, sends: Iterable[PlannedSend]) -> None:
        """Add pushes that begin."""
        self._by_task |= {send.task_id: (send.provider, "on its way") for send in sends}

    def end(self, sent: SentPush) -> None:
        """Take the result of one."""
        self.states.add(sent.state)
        provider, _ = self._by_task[sent.task_id]
        self._by_task[sent.task_id] = (provider, f"**{sent.state}**" + (f": {sent.reason}" if sent.reason else ""))

    def rows(self) -> list[tuple[str, str]]:
        """Give each with its state; many as counts."""
        if len(self._by_task) <= MAX_ROWS:
            return [(f"{provider} `{task_id}`", status) for task_id, (provider, status) in self._by_task.items()]
        counts = Counter(self._by_task.values())
        return [(f"{provider}: {count}", status) for (provider, status), count in sorted(counts.items())]

    def table(self) -> str:
        """Give the table; empty if there are no pushes."""
        return _table(("Push", "State"), self.rows()) if self._by_task else ""


def of_reminders(
    state: SessionState, waiting_for: str, outcomes: Mapping[tuple[int, datetime], Pushes | str], ahead: str
) -> str:
    """Describe a fasting session's reminders; `ahead` is the state of those that are not opened."""
    rows: list[tuple[str, str, str, str]] = []
    for (minutes, due_at), what in outcomes.items():
        pushes = [("", what)] if isinstance(what, str) else what.rows()
        for push, status in pushes:
            rows.append((f"{minutes} min before the end", clock(due_at), push, status))
    unopened = [each for each in state.reminders if (each.minutes, each.due_at) not in outcomes]
    rows += [(f"{each.minutes} min before the end", clock(each.due_at), "", ahead) for each in unopened]
    fast = f"The fast is *{state.status}* (revision {state.rev}), its end {clock(state.ends_at)}."
    return f"Waits for **{waiting_for}**. {fast}\n\n{_table(('Reminder', 'Due', 'Push', 'State'), rows)}"


def found_by(values: Mapping[str, str]) -> TypedSearchAttributes:
    """Give search attributes, all of them keywords."""
    pairs = [SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in values.items()]
    return TypedSearchAttributes(pairs)


def clock(at: datetime) -> str:
    """Write an instant for people."""
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
