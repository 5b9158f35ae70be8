"""What the preference page changes holds at once: for a fast that is asleep, one that is armed, and one that is held."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from simulator import Simulator
from tests.house import House, User, eventually, iphone
from tests.open_page import Window, opened

STOP = "/preferences/stop"


async def start(user: User, *, seconds: float) -> UUID:
    """Start a fast with the reminder minutes of the preferences; a minute before its end is in so many seconds."""
    session_id = uuid4()
    ends_at = datetime.now(UTC) + timedelta(seconds=seconds, minutes=1)
    answer = await user.call("PUT", f"/v1/fasting-sessions/{session_id}", {"ends_at": ends_at.isoformat()})
    assert answer.status_code == 201, answer.text
    return session_id


async def save(window: Window, **changes: Any) -> None:
    """Save the form with these changes."""
    answer = await window.save(**changes)
    assert answer.status_code == 303, answer.text


async def press_stop(window: Window, what: str) -> None:
    """Press a button that stops something."""
    answer = await window.post(STOP, {"csrf_token": (await window.fields())["csrf_token"], "what": what})
    assert answer.status_code == 303, answer.text


async def reminded(house: House, user: User, **before: Any) -> tuple[UUID, Window, str]:
    """Give a fast of somebody with these preferences, their open page, and their phone's token."""
    phone = iphone()
    await user.register(phone)
    assert (await user.call("PATCH", "/v1/notification-preferences", before)).status_code == 200
    window = await opened(user)
    session_id = await start(user, seconds=4)
    await house.started(session_id)
    return session_id, window, phone.token


async def test_minutes_that_are_chosen_while_a_fast_is_asleep_remind_of_it(
    unarmed: House, simulator: Simulator
) -> None:
    session_id, window, token = await reminded(unarmed, unarmed.user(), reminder_minutes=[0])

    await save(window, reminder_minutes=["1"])

    assert await unarmed.finished(session_id) == "accepted"
    [line] = simulator.phone(token).screen
    assert line.notification.body == "1 minute to go."


async def test_reminders_that_are_switched_on_while_a_fast_is_armed_come(house: House, simulator: Simulator) -> None:
    session_id, window, token = await reminded(house, house.user(), reminder_minutes=[1], reminders=False)

    await save(window, reminders="on")

    assert await house.finished(session_id) == "accepted"
    assert len(simulator.phone(token).screen) == 1


async def test_minutes_that_are_chosen_while_a_reminder_is_held_move_it(house: House, simulator: Simulator) -> None:
    user = house.user()
    session_id, window, token = await reminded(house, user, reminder_minutes=[1])
    await eventually(partial(house.holds_sends, session_id, 1))

    await save(window, reminder_minutes=["0"])

    [held] = await eventually(partial(_settled, house, session_id))
    assert (held.state, held.last_reason) == ("withdrawn", "goal_moved")
    assert not simulator.requests.for_token(token)
    shown = (await user.call("GET", f"/v1/fasting-sessions/{session_id}")).json()["reminders"]
    assert [(each["minutes"], each["state"]) for each in shown] == [(0, "scheduled")]
    await user.cancel(session_id)


async def test_one_press_stops_a_reminder_that_is_held(house: House, simulator: Simulator) -> None:
    session_id, window, token = await reminded(house, house.user(), reminder_minutes=[1])
    await eventually(partial(house.holds_sends, session_id, 1))

    await press_stop(window, "reminders")

    [held] = await eventually(partial(_settled, house, session_id))
    assert (held.state, held.last_reason) == ("withdrawn", "reminders_off")
    assert not simulator.requests.for_token(token)


async def _settled(house: House, session_id: UUID) -> list[Any]:
    return [task for task in await house.tasks(session_id) if task.state != "pending"]
