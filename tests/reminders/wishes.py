"""What people want before and after their fasts are asleep, armed or held."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.stack import Phone, Stack, iphone

PREFERENCES = "/v1/notification-preferences"
Wish = Mapping[str, object]


@dataclass(frozen=True)
class Change:
    """Somebody wants one thing, and another when their fast is there."""

    stack: Stack  # that of its API process, which decides whether the fast is asleep or armed
    held: int  # sends in a worker's hands by then
    before: Wish
    after: Wish


async def phones_after(changes: Sequence[Change], **registered: str) -> list[Phone]:
    """Let each change be somebody's; gives their phones once all fasts are finished.

    Where a fast was due before all was changed, once more with other people and twice the time.
    """
    due_in = 3.0
    while (phones := await _changed_in_time(changes, due_in, registered)) is None:
        due_in *= 2
    return phones


async def _changed_in_time(
    changes: Sequence[Change], due_in: float, registered: Mapping[str, str]
) -> list[Phone] | None:
    now = asyncio.get_running_loop().time
    users, phones = [each.stack.user() for each in changes], [iphone() for _ in changes]
    await asyncio.gather(*(user.register(phone, **registered) for user, phone in zip(users, phones, strict=True)))
    for user, change in zip(users, changes, strict=True):
        assert (await user.call("PATCH", PREFERENCES, change.before)).status_code == 200
    due_at = now() + due_in
    fasts = await asyncio.gather(*(user.start_fast(due_in=due_in) for user in users))
    for session_id, change in zip(fasts, changes, strict=True):
        await change.stack.started(session_id)
        while change.held and now() < due_at and not await change.stack.holds_sends(session_id, change.held):
            await asyncio.sleep(0.02)

    wishes = (user.call("PATCH", PREFERENCES, change.after) for user, change in zip(users, changes, strict=True))
    answers = await asyncio.gather(*wishes)

    assert {answer.status_code for answer in answers} == {200}
    if now() >= due_at:
        return None
    for session_id, change in zip(fasts, changes, strict=True):
        await change.stack.finished(session_id)
    return phones
