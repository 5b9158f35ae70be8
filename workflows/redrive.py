"""One durable workflow per redriven push task: the same send as ever, with all checks again."""

from temporalio import workflow

from workflows.fan_out import never_over, send_all

with workflow.unsafe.imports_passed_through():
    from domain.wire import RedriveState, SentPush


@workflow.defn
class Redrive:
    """Sends one push task that a person took from dead to pending.

    Nothing is decided here: the last-moment check withdraws a push that is of no use any more. Whoever redrives the
    task again while this closes, or where the push goes by then, is heard by the signal.
    """

    @workflow.init
    def __init__(self, ask: RedriveState) -> None:
        """Know that there is something to send."""
        self._asked, self._ask = True, ask

    @workflow.run
    async def run(self, _: RedriveState) -> str:
        """Live until the task is finished; returns what it came to."""
        came_to: tuple[SentPush, ...] = ()
        while self._asked:
            self._asked, ask = False, self._ask
            workflow.set_current_details(f"Push task {ask.send.task_id} is on its way again.")
            came_to = await send_all([ask.send], ask.due_at, ask.expires_at, never_over)
        [sent] = came_to
        reason = f" ({sent.reason})" if sent.reason else ""
        workflow.set_current_details(f"Push task {sent.task_id} {sent.state}{reason}.")
        return sent.state

    @workflow.signal
    def again(self, ask: RedriveState | None = None) -> None:  # None: an older release's relay
        """Learn that the task was redriven, for the first time or once more."""
        self._asked, self._ask = True, ask or self._ask
