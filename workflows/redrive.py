"""One durable workflow per redriven push task: the same send as ever, with all checks again."""

from temporalio import workflow

from workflows.details import Pushes, clock
from workflows.fan_out import never_over, send_all

with workflow.unsafe.imports_passed_through():
    from domain.wire import RedriveState, SentPush


@workflow.defn
class Redrive:
    """Sends one push task that a person took from dead to pending.

    Nothing is decided here: the last-moment check withdraws a push that is of no use any more. Whoever redrives the
    task again while this closes is heard by the signal.
    """

    @workflow.init
    def __init__(self, _: RedriveState) -> None:
        """Know that there is something to send."""
        self._asked = True
        self._pushes = Pushes()

    @workflow.run
    async def run(self, ask: RedriveState) -> str:
        """Live until the task is finished; returns what it came to."""
        came_to: tuple[SentPush, ...] = ()
        while self._asked:
            self._asked = False
            self._pushes.begin([ask.send])
            self._describe(f"its answer, until {clock(ask.expires_at)} at the latest")
            came_to = await send_all([ask.send], ask.due_at, ask.expires_at, never_over, self._pushes.end)
        [sent] = came_to
        self._describe("nothing any more")
        return sent.state

    def _describe(self, waiting_for: str) -> None:
        workflow.set_current_details(f"Waits for **{waiting_for}**.\n\n{self._pushes.table()}")

    @workflow.signal
    def again(self) -> None:
        """Learn that the task was redriven, for the first time or once more."""
        self._asked = True
