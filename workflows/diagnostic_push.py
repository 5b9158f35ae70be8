"""One durable workflow per test push: the same sends as for other pushes, with all checks."""

from collections import Counter

from temporalio import workflow

from workflows.fan_out import never_over, send_all
from workflows.status import Pushes, clock

with workflow.unsafe.imports_passed_through():
    from domain.push import SentPush
    from operations.diagnostic_push import TestPushState


@workflow.defn(name="TestPush")
class DiagnosticPush:
    """Sends a test push to the phones it was planned for."""

    @workflow.init
    def __init__(self, _: TestPushState) -> None:
        """Begin without pushes."""
        self._pushes = Pushes()

    @workflow.run
    async def run(self, ask: TestPushState) -> dict[str, int]:
        """Run until each push is finished; returns their number by state."""
        waiting_for = f"the providers' answers, until {clock(ask.expires_at)} at the latest"

        def on_sent(sent: SentPush) -> None:
            self._pushes.end(sent)
            self._describe(waiting_for)

        self._pushes.begin(ask.sends)
        self._describe(waiting_for)
        sent = await send_all(ask.sends, ask.due_at, ask.expires_at, never_over, on_sent)
        self._describe("nothing")
        return dict(Counter(each.state.value for each in sent))

    def _describe(self, waiting_for: str) -> None:
        workflow.set_current_details(f"Waits for **{waiting_for}**.\n\n{self._pushes.table()}")
