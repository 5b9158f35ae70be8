"""An app's own presentation, from its file to the screens, and its changes while pushes are on their way."""

from uuid import UUID

import pytest
from structlog.testing import capture_logs

from push.registry import Rotation
from simulator import Simulator
from simulator.phones import ScreenLine
from tests.apps.conftest import ONE, AppsFile
from tests.busy import lead
from tests.stack import Phone, Stack, User, android, eventually, iphone, refuse_once, working
from tests.streaming import streaming
from tests.talk import sync

TEA = """
link = "teatime://{path}"
[reminder]
sound = "steep.caf"
channel = "steeping"
level = "time-sensitive"
quiet_channel = "hush"
[texts.en.reminder]
title = "Your tea is nearly ready"
body = "{left} to go, {label.name}."
now = "Time to drink."
[texts.de.reminder]
title = "Dein Tee ist gleich fertig"
body = "{label.name}: noch {left}"
[texts.en.generic.reminder]
title = "Reminder"
body = "Open the app."
"""
COFFEE = TEA.replace("teatime", "kaffee").replace("tea", "coffee").replace("steeping", "brewing")
NIGHT = {"starts": "00:00", "ends": "23:59", "time_zone": "UTC", "mode": "silent"}


@pytest.fixture
async def alice(stack: Stack, rotation: Rotation, apps_file: AppsFile) -> User:
    """Somebody with the app `one`, which has a presentation."""
    apps_file.write(one=apps_file.presented("one", TEA) + apps_file.table("one", ONE))
    await rotation.look()
    user = stack.user()

    async def is_read() -> bool:
        phone = iphone()
        await user.register(phone, app_id="one")
        line = await _shown(user, stack.place.simulator, phone)
        await user.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")
        return str(line.data["url"]).startswith("teatime:")

    await eventually(is_read)
    return user


async def test_both_phones_show_the_apps_own_words_link_sound_and_channel(alice: User, simulator: Simulator) -> None:
    mine, hers = iphone(), android()
    await alice.register(mine, app_id="one", locale="en-GB")
    await alice.register(hers, app_id="one", locale="de-AT")

    session_id = await alice.start_fast(due_in=0.5, labels={"name": "Assam {left}"})
    assert await alice.stack.finished(session_id) == "accepted"

    [on_iphone], [on_android] = (simulator.phone(phone.token).screen for phone in (mine, hers))
    assert (on_iphone.title, on_iphone.body) == ("Your tea is nearly ready", "1 minute to go, Assam {left}.")
    assert (on_android.title, on_android.body) == ("Dein Tee ist gleich fertig", "Assam {left}: noch 1 Minute")
    for line in (on_iphone, on_android):
        assert line.data["url"] == f"teatime://fasting-sessions/{session_id}"
        assert line.data.keys() == {"task_id", "kind", "url"}
    assert (on_iphone.notification.sound, on_iphone.notification.level) == ("steep.caf", "time-sensitive")
    assert (on_android.notification.sound, on_android.notification.channel) == ("steep", "steeping")


async def test_quiet_hours_use_the_apps_quiet_channel_and_generic_previews_its_generic_text(
    alice: User, simulator: Simulator
) -> None:
    phone = android()
    await alice.register(phone, app_id="one")
    await alice.call("PATCH", "/v1/notification-preferences", {"quiet_hours": NIGHT, "reminder_preview": "generic"})

    line = await _shown(alice, simulator, phone, name="Assam")

    assert (line.title, line.body) == ("Reminder", "Open the app.")
    shown = line.notification
    assert (shown.channel, shown.level, shown.has_sound) == ("hush", "passive", False)


@pytest.mark.long
async def test_what_is_armed_goes_out_whole_as_the_file_is_when_it_is_sent(
    alice: User, simulator: Simulator, apps_file: AppsFile
) -> None:
    phone = iphone()
    await alice.register(phone, app_id="one")
    with capture_logs() as logs:
        session_id = await alice.start_fast(due_in=lead(3.0), labels={"name": "Java"})

        async def is_armed() -> bool:
            return await alice.stack.holds_sends(session_id, 1)

        await eventually(is_armed)
        apps_file.presented("one", COFFEE)
        assert await alice.stack.finished(session_id) == "accepted"

    [line] = simulator.phone(phone.token).screen
    assert {each["app_id"] for each in logs if each["event"] == "presentation renewed"} == {"one"}
    assert line.title == "Your coffee is nearly ready"
    assert line.data["url"] == f"kaffee://fasting-sessions/{session_id}"


@pytest.mark.long
async def test_another_attempt_is_worded_as_the_file_is_then_and_a_broken_file_changes_nothing(
    alice: User, simulator: Simulator, apps_file: AppsFile
) -> None:
    phone = iphone()
    await alice.register(phone, app_id="one")
    refuse_once(simulator, phone)
    session_id = await alice.start_fast(due_in=0.5, labels={"name": "Java"})

    async def has_failed() -> bool:
        return await alice.stack.failed_attempts(session_id, 1)

    await eventually(has_failed)
    apps_file.presented("one", TEA + "[texts.en.mesage]\n")
    assert await alice.stack.finished(session_id) == "accepted"

    [line] = simulator.phone(phone.token).screen
    assert line.title == "Your tea is nearly ready"


async def test_the_badge_counts_what_is_not_synced_and_sync_and_stream_give_the_apps_links(
    alice: User, simulator: Simulator, apps_file: AppsFile
) -> None:
    phone, other = iphone(), android()
    apps_file.presented("one", 'badge = "unread"\n' + TEA)
    for each in (phone, other):
        await alice.register(each, app_id="one")

    async def counts() -> bool:
        return (await _shown(alice, simulator, phone)).notification.badge is not None

    await eventually(counts)
    before = (await sync(alice, phone.installation_id))["next_cursor"]
    page = await sync(alice, phone.installation_id, after=before - 1)
    async with streaming(alice, phone.installation_id, after=before - 1) as events:
        streamed = await events.take(len(page["items"]))
    line = await _shown(alice, simulator, phone)

    assert {item["url"].partition("://")[0] for item in page["items"]} == {"teatime"}
    assert streamed == page["items"]
    assert line.notification.badge == 2  # the item that is not acknowledged, and this one
    assert simulator.phone(other.token).screen[0].notification.badge == before + 1


async def test_the_default_app_has_a_file_of_its_own(
    idle_stack: Stack, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("default") / "tea.toml"
    file.write_text(TEA)
    async with working(idle_stack, idle_stack.place.environment(PRESENTATION_FILE=str(file))):
        user, phone = idle_stack.user(), iphone()
        await user.register(phone)
        line = await _shown(user, simulator, phone)

    assert (line.title, line.body) == ("Your tea is nearly ready", "1 minute to go.")


async def _shown(user: User, simulator: Simulator, phone: Phone, **labels: str) -> ScreenLine:
    """Remind somebody; gives the newest line on the screen."""
    session_id: UUID = await user.start_fast(due_in=0.3, labels=labels)
    assert await user.stack.finished(session_id) == "accepted"
    return simulator.phone(phone.token).screen[0]
