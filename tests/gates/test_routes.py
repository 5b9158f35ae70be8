"""Names of apps that phones make up, where no app has credentials of its own."""

import dataclasses

from domain.push import TaskState
from simulator import Simulator
from tests.gates.worker_harness import crew, due_now
from tests.stack import House, iphone


async def test_phones_that_make_up_apps_share_the_default_gate_and_its_brake(
    unmanned: House, simulator: Simulator
) -> None:
    phones = [iphone() for _ in range(20)]
    all_due = [dataclasses.replace(due, app_id=f"app.{n}") for n, due in enumerate(await due_now(unmanned, phones))]
    simulator.faults.add(provider="apns", fault="answer", status=400, reason="BadDeviceToken")

    async with crew(unmanned) as worker:
        sent = await worker.send_all(all_due)
        [gate] = worker.means.gates.report()["gates"]

    assert (gate["app_id"], gate["state"]) == (None, "braked")
    assert {each.state for each in sent} <= {TaskState.UNREGISTERED, TaskState.DEAD}
    [brake] = await unmanned.rows("SELECT app_id FROM brakes")
    assert brake.app_id is None
