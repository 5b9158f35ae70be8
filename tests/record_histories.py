"""Records the histories that `tests/test_histories.py` replays: `python -m tests.record_histories`.

It writes only the histories that are missing: those of earlier releases have to replay as they are.
"""

import asyncio
import json
import socket
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

from temporalio.client import WorkflowHistory
from temporalio.service import RPCError

from activities.housekeeping import SweepOrphans
from db.migrate import migrate
from demo.parts import start_postgres
from dispatch.starts import follow_elsewhere
from domain.naming import WORKFLOW_QUEUE
from settings import logs
from simulator import Simulator
from tests.events.hooks import hooked, register_some
from tests.events.receiver import receiving
from tests.housekeeping.sweeps import stray, without_workflow
from tests.servers import TemporalServer, free_port
from tests.stack import ROOT, Stack, StackPlace, android, eventually, iphone, open_stack, refuse_once, uncommitted
from tests.support.dead import dead_task, redrive, redriven
from tests.talk import connected, conversation_of, give_phones, handed_off, handoff, posted, tasks_of
from workflows.housekeeping import OrphanSweep, Retention

HISTORIES = Path(__file__).parent / "histories"


async def _record() -> None:
    logs.configure("console", "ERROR")
    with tempfile.TemporaryDirectory(prefix="fastbell-") as directory:
        postgres = start_postgres(Path(directory) / "data")
        await migrate(postgres.get_uri())
        async with (
            TemporalServer.start(free_port(), ("default",)) as server,
            Simulator.start(run_dir=Path(directory)) as simulator,
        ):
            place = StackPlace(postgres.get_uri(), server.address, "default", simulator)
            async with open_stack(place, WEBHOOKS_ALLOW_PRIVATE="true") as stack:
                await _asleep(stack)
                await _armed_then_accepted(stack)
                await _ended_while_armed(stack)
                await _cancelled_in_back_off(stack, simulator)
                await _moved(stack)
                await _without_device(stack)
                await _opened_at_the_second_try(stack)
                await _redriven(stack, simulator)
                await _tested(stack, simulator)
                await _handed_off(stack, simulator)
                await _handed_off_in_pages(stack)
                await _handed_off_later(stack, simulator)
                await _page_started_anew(stack, simulator)
                await _housekept(stack)
                await _followed(stack)
                await _followed_elsewhere(stack)
        postgres.cleanup()


async def _asleep(stack: Stack) -> None:
    session_id = await stack.user().start_fast(due_in=36000, minutes=(60, 30))
    await stack.started(session_id)
    await _save(stack, session_id, "asleep-unsignalled")  # `asleep`: by earlier code, which signalled a start, too


async def _armed_then_accepted(stack: Stack) -> None:
    user = stack.user()
    await user.register(iphone(), android())
    session_id = await user.start_fast(due_in=1)
    await eventually(lambda: stack.holds_sends(session_id, 2))
    await _save(stack, session_id, "armed")
    await stack.finished(session_id)
    await _save(stack, session_id, "accepted-briefly")  # `accepted`: by earlier code, with a second look


async def _ended_while_armed(stack: Stack) -> None:
    user = stack.user()
    await user.register(iphone())
    session_id = await user.start_fast(due_in=1)
    await eventually(lambda: stack.holds_sends(session_id, 1))
    await user.end(session_id)
    await stack.finished(session_id)
    await _save(stack, session_id, "ended-while-armed")


async def _cancelled_in_back_off(stack: Stack, simulator: Simulator) -> None:
    user, phone = stack.user(), android()
    await user.register(phone)
    refuse_once(simulator, phone)
    session_id = await user.start_fast(due_in=1.0)
    await eventually(lambda: stack.failed_attempts(session_id, 1))
    await user.cancel(session_id)
    await stack.finished(session_id)
    await _save(stack, session_id, "cancelled-in-back-off")


async def _moved(stack: Stack) -> None:
    user = stack.user()
    await user.register(iphone())
    session_id = await user.start_fast(due_in=3600)
    await stack.started(session_id)
    await user.move_goal(session_id, due_in=1)
    await stack.finished(session_id)
    await _save(stack, session_id, "moved")


async def _without_device(stack: Stack) -> None:
    session_id = await stack.user().start_fast(due_in=1)
    await stack.finished(session_id)
    await _save(stack, session_id, "without-device")


async def _redriven(stack: Stack, simulator: Simulator) -> None:
    user, phone = stack.user(), iphone()
    [task_id] = await dead_task(user, phone)
    refuse_once(simulator, phone)
    await redrive(stack.user(None, "support"), task_id)
    await redriven(stack, task_id)
    _write((await stack.temporal.get_workflow_handle(f"redrive/{task_id}").fetch_history()), "redriven-and-found")


async def _tested(stack: Stack, simulator: Simulator) -> None:
    user, phone = stack.user(), iphone()
    await user.register(phone, android())
    refuse_once(simulator, phone)
    carol = stack.user(None, "support")
    answer = await carol.call("POST", f"/v1/support/users/{user.user_id}/test-push", {})
    handle = stack.temporal.get_workflow_handle(f"test-push/{answer.json()['test_push_id']}")

    async def is_over() -> bool:
        try:
            return bool(await handle.result())
        except RPCError:  # not started yet
            return False

    await eventually(is_over, within=30)
    _write(await handle.fetch_history(), "tested")


async def _handed_off(stack: Stack, simulator: Simulator) -> None:
    alice, bob, phones = stack.user(), stack.user(), [iphone(), android()]
    await bob.register(*phones)
    refuse_once(simulator, phones[1])
    await connected(stack, bob, phones[0])
    message_id = await posted(alice, await conversation_of(alice, bob))
    await handed_off(stack, message_id)
    _write(await handoff(stack, message_id).fetch_history(), "handed-off")


async def _handed_off_in_pages(stack: Stack) -> None:
    crowd = [stack.user() for _ in range(52)]
    await give_phones(stack, crowd)
    message_id = await posted(crowd[0], await conversation_of(*crowd))
    await handed_off(stack, message_id)
    planned = "handed-off-in-planned-pages"  # `handed-off-in-pages`: by earlier code
    _write(await handoff(stack, message_id).fetch_history(), planned)
    page = stack.temporal.get_workflow_handle(f"message-handoff/{message_id}/2")
    _write(await page.fetch_history(), "last-page")


async def _handed_off_later(stack: Stack, simulator: Simulator) -> None:
    """The later message waits for the line, which the first one's slow call has taken."""
    alice, bob, phone = stack.user(), stack.user(), iphone()
    await bob.register(phone)
    conversation_id = await conversation_of(alice, bob)
    simulator.faults.add(provider="apns", token=phone.token, fault="slow", delay=3, count=1)
    await posted(alice, conversation_id)
    await eventually(lambda: stack.rows("SELECT 1 FROM push_attempts WHERE outcome IS NULL"))
    message_id = await posted(alice, conversation_id)
    await handed_off(stack, message_id)
    _write(await handoff(stack, message_id).fetch_history(), "handed-off-later")


async def _page_started_anew(stack: Stack, simulator: Simulator) -> None:
    """One push waits when its page is terminated."""

    async def waits() -> bool:
        return any(task.state == "pending" and task.last_reason for task in await tasks_of(stack, message_id))

    crowd = [stack.user() for _ in range(52)]
    await give_phones(stack, crowd)
    throttled = {"status": 429, "reason": "TooManyRequests", "count": 1}
    simulator.faults.add(provider="apns", fault="answer", **throttled)
    message_id = await posted(crowd[0], await conversation_of(*crowd))
    await eventually(waits)
    await stack.temporal.get_workflow_handle(f"message-handoff/{message_id}/1").terminate()
    await handed_off(stack, message_id)
    _write(await handoff(stack, message_id).fetch_history(), "page-started-anew")  # `page-left`: by earlier code


async def _opened_at_the_second_try(stack: Stack) -> None:
    async def waits() -> bool:
        events = (await stack.workflow(session_id).fetch_history()).events
        return any(event.HasField("marker_recorded_event_attributes") for event in events)

    user = stack.user()
    await user.register(iphone())
    async with uncommitted(stack, "LOCK TABLE push_tasks IN EXCLUSIVE MODE"):
        session_id = await user.start_fast(due_in=5)
        await stack.started(session_id)
        await eventually(waits)
        await _save(stack, session_id, "waits-for-the-second-try")
    await stack.finished(session_id)
    await _save(stack, session_id, "opened-at-the-second-try")


async def _housekept(stack: Stack) -> None:
    """A sweep that finds a fast and a push task without a workflow, and a run of retention."""
    await stray(stack.user(), iphone())
    await without_workflow(stack.user())
    runs: dict[str, tuple[Any, list[Any]]] = {
        "swept": (OrphanSweep.run, [SweepOrphans(untouched=10)]),
        "let-go-of-events": (Retention.run, []),  # the other five `let-go` were recorded by earlier code
    }
    for name, (run, asked) in runs.items():
        handle = await stack.temporal.start_workflow(run, args=asked, id=name, task_queue=WORKFLOW_QUEUE)
        await handle.result()
        _write(await handle.fetch_history(), name)


async def _followed(stack: Stack) -> None:
    """A webhook whose receiver refuses everything, so that it rests, is tested, accepts, and is deleted."""

    async def rests() -> bool:
        return bool(await stack.rows("SELECT 1 FROM webhooks WHERE rests_until > now()"))

    async with receiving() as receiver:
        receiver.answer(503)
        async with hooked(stack, receiver) as hook:
            workflow = stack.temporal.get_workflow_handle(f"webhook/{hook.id}")
            await register_some(stack, 6)
            await eventually(rests)
            _write(await workflow.fetch_history(), "webhook-rests")
            receiver.answer(204)
            await hook.call("POST", "/test")
            await hook.ends_as(1, type="webhook.test", state="accepted")
        await workflow.result()
        _write(await workflow.fetch_history(), "webhook-deleted")


async def _followed_elsewhere(stack: Stack) -> None:
    """A webhook whose worker is taken for lost, so that its activity is given up and another one begins."""
    async with receiving() as receiver, hooked(stack, receiver, "webhook.disabled") as hook:
        for count in (1, 2):
            await hook.call("POST", "/test")
            await hook.ends_as(count, type="webhook.test", state="accepted")
            assert await follow_elsewhere(stack.temporal, hook.id, living=())
        await hook.call("POST", "/test")
        await hook.ends_as(3, type="webhook.test", state="accepted")
        _write(await stack.temporal.get_workflow_handle(f"webhook/{hook.id}").fetch_history(), "webhook-moved")


async def _save(stack: Stack, session_id: UUID, name: str) -> None:
    _write(await stack.workflow(session_id).fetch_history(), name)


def _write(fetched: WorkflowHistory, name: str) -> None:
    history = fetched.to_json_dict()
    text = json.dumps(history, indent=1, sort_keys=True).replace(socket.gethostname(), "recorder")
    text = text.replace(f"{ROOT}/", "")  # in stack traces
    path = HISTORIES / f"{name}.json"
    if not path.exists():
        path.write_text(text + "\n")
        print("recorded", path.relative_to(ROOT))  # noqa: T201 -- a command


if __name__ == "__main__":
    asyncio.run(_record())
