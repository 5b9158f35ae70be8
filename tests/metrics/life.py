"""An ordinary day: reminders and messages are sent, read, withdrawn and replaced; phones change hands, one is gone."""

from dataclasses import dataclass, replace

from simulator import Simulator
from tests.house import House, Phone, User, android, eventually, iphone
from tests.talk import conversation_of, handed_off, posted, sync


@dataclass(frozen=True)
class Life:
    """Who lived it, and which phones were called."""

    people: tuple[User, ...]
    phones: tuple[Phone, ...]


async def live(house: House, simulator: Simulator) -> Life:
    """Let it happen."""
    alice, bob, carol, dora = [house.user() for _ in range(4)]
    hers, his, gone, kept, spared = iphone(), android(), android(), iphone(), iphone()
    await alice.register(hers)
    await bob.register(his)
    await carol.register(gone, kept)
    await dora.register(spared)
    simulator.faults.add(provider="fcm", token=gone.token, fault="answer", error_code="UNREGISTERED", status=404)

    fast, ended = await carol.start_fast(due_in=1.0), await dora.start_fast(due_in=10.0)
    await eventually(lambda: house.holds_sends(ended, 1))
    await dora.end(ended)
    conversation = await conversation_of(alice, bob)
    for _ in range(2):
        await handed_off(house, await posted(alice, conversation))  # the second one takes the line of the first
    await house.finished(fast)
    await sync(bob, his.installation_id, after=2)
    await bob.register(replace(hers, installation_id=his.installation_id))  # the phone is his now
    await house.finished(ended)
    return Life((alice, bob, carol, dora), (hers, his, gone, kept, spared))
