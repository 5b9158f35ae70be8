"""Days that are told of: an ordinary one, and what goes wrong on others."""

import asyncio
from dataclasses import dataclass, replace

from simulator import Simulator
from tests.stack import Phone, Stack, User, android, eventually, iphone, refuse_once
from tests.support.dead import redrive, redriven
from tests.talk import conversation_of, handed_off, posted, sync, tasks_of


@dataclass(frozen=True)
class Life:
    """Who lived it, and which phones were called."""

    people: tuple[User, ...]
    phones: tuple[Phone, ...]


async def live(stack: Stack, simulator: Simulator) -> Life:
    """Let an ordinary day happen: phones are reminded, read, change hands; one is gone, one fast ends early."""
    alice, bob, carol, dora = [stack.user() for _ in range(4)]
    hers, his, gone, kept, spared = iphone(), android(), android(), iphone(), iphone()
    await alice.register(hers)
    await bob.register(his)
    await carol.register(gone, kept)
    await dora.register(spared)
    simulator.faults.add(provider="fcm", token=gone.token, fault="answer", error_code="UNREGISTERED", status=404)

    fast, ended = await carol.start_fast(due_in=1.0), await dora.start_fast(due_in=10.0)
    await eventually(lambda: stack.holds_sends(ended, 1))
    await dora.end(ended)
    conversation = await conversation_of(alice, bob)
    for _ in range(2):
        await handed_off(stack, await posted(alice, conversation))  # the second one takes the line of the first
    await stack.finished(fast)
    await sync(bob, his.installation_id, after=2)
    await bob.register(replace(hers, installation_id=his.installation_id))  # the phone is his now
    await stack.finished(ended)
    return Life((alice, bob, carol, dora), (hers, his, gone, kept, spared))


async def live_through_trouble(stack: Stack, simulator: Simulator) -> Life:
    """Let an ordinary day happen, and beside it the trouble that pushes can have; three bad tokens are many."""
    happenings = (live, _retried_and_refused, _dead_and_redriven, _revived, _cut_off, _read_early)
    lives = await asyncio.gather(*(happen(stack, simulator) for happen in happenings))
    return Life(
        tuple(person for life in lives for person in life.people),
        tuple(phone for life in lives for phone in life.phones),
    )


async def _retried_and_refused(stack: Stack, simulator: Simulator) -> Life:
    """One phone's push is accepted at the second attempt, another one's will never be."""
    erin, finn = stack.user(), stack.user()
    retried, refused = iphone(), iphone()
    await erin.register(retried)
    await finn.register(refused)
    refuse_once(simulator, retried)
    too_large = {"status": 413, "reason": "PayloadTooLarge"}
    simulator.faults.add(provider="apns", token=refused.token, fault="answer", **too_large)

    fasts = [await user.start_fast(due_in=1.0) for user in (erin, finn)]

    assert [await stack.finished(fast) for fast in fasts] == ["accepted", "rejected"]
    return Life((erin, finn), (retried, refused))


async def _dead_and_redriven(stack: Stack, simulator: Simulator) -> Life:
    """Two phones are called so late that their pushes are dead before they expire; one is redriven."""
    gina, saved, lost = stack.user(), android(), android()
    await gina.register(saved, lost)
    for phone in (saved, lost):
        late = {"status": 429, "error_code": "QUOTA_EXCEEDED", "retry_after": 3600}
        simulator.faults.add(provider="fcm", token=phone.token, fault="answer", count=1, **late)

    fast = await gina.start_fast(due_in=1.0)

    assert await stack.finished(fast) == "dead"
    [dead] = [task for task in await stack.tasks(fast) if task.installation_id == saved.installation_id]
    assert (await redrive(stack.user(None, "support"), dead.task_id)).status_code == 202
    assert await redriven(stack, dead.task_id) == ("accepted", None)
    return Life((gina,), (saved, lost))


async def _revived(stack: Stack, simulator: Simulator) -> Life:
    """A phone's token is dead; when the phone registers another one, what it missed is sent after all."""
    ivan, missed = stack.user(), android()
    found = replace(missed, token=android().token)
    await ivan.register(missed)
    simulator.faults.add(provider="fcm", token=missed.token, fault="answer", error_code="UNREGISTERED", status=404)
    sender = stack.user()

    message_id = await posted(sender, await conversation_of(sender, ivan))
    await handed_off(stack, message_id)
    await ivan.register(found)

    [task] = await tasks_of(stack, message_id)
    assert await redriven(stack, task.task_id) == ("accepted", None)
    return Life((ivan,), (missed, found))


async def _cut_off(stack: Stack, simulator: Simulator) -> Life:
    """Two users' tokens are refused; with the third one's the cutoff engages, and all three pushes are dead."""
    users, phones = [stack.user() for _ in range(3)], [iphone() for _ in range(3)]
    for user, phone in zip(users, phones, strict=True):
        await user.register(phone, environment="sandbox")
        wrong = {"status": 400, "reason": "BadDeviceToken"}
        simulator.faults.add(provider="apns", token=phone.token, fault="answer", **wrong)

    came_to = [await stack.finished(await user.start_fast(due_in=1.0)) for user in users]

    assert came_to == ["unregistered", "unregistered", "dead"]
    return Life(tuple(users), tuple(phones))


async def _read_early(stack: Stack, simulator: Simulator) -> Life:
    """Two phones read a message while their providers are called: one answers then, the other one never does."""
    hugo, answered, unanswered = stack.user(), android(), iphone()
    await hugo.register(answered, unanswered)
    simulator.faults.add(provider="fcm", token=answered.token, fault="slow", delay=2.5)
    simulator.faults.add(provider="apns", token=unanswered.token, fault="silent", count=1)
    sender = stack.user()

    message_id = await posted(sender, await conversation_of(sender, hugo))
    for phone in (answered, unanswered):
        await simulator.requests.wait(1, token=phone.token, within=10)
        await sync(hugo, phone.installation_id, after=1)

    assert await handed_off(stack, message_id) == "accepted"
    early = "SELECT 1 FROM push_tasks WHERE message_id = :id AND synced_at < accepted_at"
    assert await stack.rows(early, id=message_id), "the provider was quicker than the app"
    return Life((hugo,), (answered, unanswered))
