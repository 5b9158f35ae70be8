"""Apple's limit drops to one between a push's last check and its call, while a slow call has the one place."""

from uuid import UUID

from tests.faults.service import Service, in_time, undisturbed
from tests.routes.worker_harness import claim_is_held, held_claim
from tests.stack import Phone, eventually, iphone


async def test_a_push_that_finds_no_room_after_its_check_costs_no_attempt_and_is_called_once(patient: Service) -> None:
    service = patient
    checked, slow, dead = iphone(), iphone(), iphone()
    service.simulator.faults.add(provider="apns", token=slow.token, fault="slow", delay=9, count=1)
    service.simulator.faults.add(
        provider="apns", token=dead.token, fault="answer", status=410, reason="ExpiredToken", timestamp=1
    )
    async with held_claim(service.stack, checked):
        fasts = await service.fasts([checked], due_in=1.0)
        await eventually(lambda: claim_is_held(service.stack))
        fasts |= await service.fasts([slow, dead], due_in=1.3)  # at one instant
        await eventually(lambda: _limit_is_one_and_taken(service, fasts[dead], slow))

    await service.all_wait({checked: fasts[checked]})
    [waiting] = await service.stack.tasks(fasts[checked])
    attempts = await service.stack.rows("SELECT 1 FROM push_attempts WHERE task_id = :id", id=waiting.task_id)
    service.simulator.faults.clear()  # the slow call is answered now
    pushed = await service.came_to(fasts)

    assert (waiting.last_reason, waiting.attempt_count, attempts) == ("no_room_on_connection", 0, [])
    assert [each for each in pushed[:2] if not (undisturbed(each) and in_time(each))] == []
    [task] = await service.stack.tasks(fasts[checked])
    assert task.attempt_count == 1


async def _limit_is_one_and_taken(service: Service, dead: UUID, slow: Phone) -> bool:
    was_refused = [task.state for task in await service.stack.tasks(dead)] == ["unregistered"]
    return was_refused and bool(service.simulator.requests.for_token(slow.token))
