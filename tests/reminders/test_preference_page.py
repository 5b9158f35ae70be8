"""What the preference page changes holds at once, for fasts that are asleep, armed or held."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from simulator import Simulator
from tests.open_page import PAGE, Window, filled, opened
from tests.stack import Stack, User, eventually, iphone

PREFERENCES, STOP = "/v1/notification-preferences", "/preferences/stop"


async def test_what_is_changed_while_a_fast_is_asleep_armed_or_held_holds_at_the_due_instant(
    stack: Stack, unarmed: Stack, simulator: Simulator
) -> None:
    await asyncio.gather(
        _asleep(unarmed, simulator), _armed(stack, simulator), _held(stack, simulator), _stopped(stack, simulator)
    )


async def _asleep(stack: Stack, simulator: Simulator) -> None:
    """Minutes that are chosen while a fast is asleep remind of it."""
    user = stack.user()
    session_id, token = await _changed(user, {"reminder_minutes": [0]}, held=0, reminder_minutes=["1"])

    assert await stack.finished(session_id) == "accepted"
    [line] = simulator.phone(token).screen
    assert line.notification.body == "1 minute to go."


async def _armed(stack: Stack, simulator: Simulator) -> None:
    """Reminders that are switched on while a fast is armed come; there is nothing to hold while they are off."""
    before = {"reminder_minutes": [1], "reminders": False}
    session_id, token = await _changed(stack.user(), before, held=0, reminders="on")

    assert await stack.finished(session_id) == "accepted"
    assert len(simulator.phone(token).screen) == 1


async def _held(stack: Stack, simulator: Simulator) -> None:
    """Minutes that are chosen while a reminder is held move it."""
    user = stack.user()
    session_id, token = await _changed(user, {"reminder_minutes": [1]}, held=1, reminder_minutes=["0"])

    [task] = await eventually(partial(_settled, stack, session_id))
    assert (task.state, task.last_reason) == ("withdrawn", "goal_moved")
    assert not simulator.requests.for_token(token)
    shown = (await user.call("GET", f"/v1/fasting-sessions/{session_id}")).json()["reminders"]
    assert [(each["minutes"], each["state"]) for each in shown] == [(0, "scheduled")]
    await user.cancel(session_id)


async def _stopped(stack: Stack, simulator: Simulator) -> None:
    """One press stops a reminder that is held."""
    session_id, token = await _changed(stack.user(), {"reminder_minutes": [1]}, held=1, what="reminders")

    [task] = await eventually(partial(_settled, stack, session_id))
    assert (task.state, task.last_reason) == ("withdrawn", "reminders_off")
    assert not simulator.requests.for_token(token)


async def _changed(user: User, before: Mapping[str, Any], *, held: int, **changes: Any) -> tuple[UUID, str]:
    """Start a fast of somebody with these preferences and change some on the page once it is asleep, armed or held.

    Gives the fast and the phone's token. Where all that took until a minute before the fast's end, once more.
    """
    stack, seconds = user.stack, 3
    while True:
        phone = iphone()
        await user.register(phone)
        assert (await user.call("PATCH", PREFERENCES, before)).status_code == 200
        window = await opened(user)
        form = await window.fields()
        due_at = datetime.now(UTC) + timedelta(seconds=seconds)
        session_id = await _start(user, due_at + timedelta(minutes=1))
        await stack.started(session_id)
        if held:
            await eventually(partial(_is_held_or_late, stack, session_id, held, due_at), within=seconds + 15)
        await _send(window, filled(form, **changes))
        if datetime.now(UTC) < due_at - timedelta(seconds=0.5):
            return session_id, phone.token
        await user.cancel(session_id)
        await user.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")
        await user.call("PATCH", PREFERENCES, {"reminders": True})
        seconds *= 2


async def _is_held_or_late(stack: Stack, session_id: UUID, held: int, due_at: datetime) -> bool:
    return datetime.now(UTC) > due_at or await stack.holds_sends(session_id, held)


async def _start(user: User, ends_at: datetime) -> UUID:
    """Start a fast with the reminder minutes of the preferences."""
    session_id = uuid4()
    answer = await user.call("PUT", f"/v1/fasting-sessions/{session_id}", {"ends_at": ends_at.isoformat()})
    assert answer.status_code == 201, answer.text
    return session_id


async def _send(window: Window, form: Mapping[str, Any]) -> None:
    answer = await window.post(STOP if "what" in form else PAGE, form)
    assert answer.status_code == 303, answer.text


async def _settled(stack: Stack, session_id: UUID) -> list[Any]:
    return [task for task in await stack.tasks(session_id) if task.state != "pending"]
