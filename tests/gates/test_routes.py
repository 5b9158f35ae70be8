"""Names of apps that phones make up, where no app has credentials of its own."""

import dataclasses

from domain.push import TaskState
from simulator import Simulator
from tests.gates.worker_harness import due_now, worker_harness
from tests.stack import Stack, iphone


async def test_phones_that_make_up_apps_share_the_default_gate_and_its_brake(
    without_worker: Stack, simulator: Simulator
) -> None:
    phones = [iphone() for _ in range(20)]
    all_due = [
        dataclasses.replace(due, app_id=f"app.{n}") for n, due in enumerate(await due_now(without_worker, phones))
    ]
    simulator.faults.add(provider="apns", fault="answer", status=400, reason="BadDeviceToken")

    async with worker_harness(without_worker) as worker:
        sent = await worker.send_all(all_due)
        [limiter] = worker.dependencies.limiters.report()["gates"]

    assert (limiter["app_id"], limiter["state"]) == (None, "braked")
    assert {each.state for each in sent} <= {TaskState.UNREGISTERED, TaskState.DEAD}
    [cutoff] = await without_worker.rows("SELECT app_id FROM brakes")
    assert cutoff.app_id is None
