"""One durable workflow per test push: the same sends as ever, with all checks."""

from collections import Counter

from temporalio import workflow

from workflows.fan_out import never_over, send_all

with workflow.unsafe.imports_passed_through():
    from domain.wire import SentPush, TestPushState


@workflow.defn
class TestPush:
    """Sends a test push to the phones it was planned for."""

    @workflow.run
    async def run(self, ask: TestPushState) -> dict[str, int]:
        """Live until each push is finished; returns how many came to what."""
        workflow.set_current_details(f"On their way: {len(ask.sends)} pushes.")
        sent = await send_all(ask.sends, ask.due_at, ask.expires_at, never_over)
        workflow.set_current_details("\n".join(f"- push task {each.task_id} {each.state}{_why(each)}" for each in sent))
        return dict(Counter(each.state.value for each in sent))


def _why(sent: SentPush) -> str:
    return f" ({sent.reason})" if sent.reason else ""
