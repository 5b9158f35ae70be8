"""The preference page as a person uses it, in a Chromium without JavaScript: no script is needed anywhere."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal
from uuid import uuid4

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from api.preference_page.rendering import STYLE, preference_page
from api.preference_page.view import View, nights
from domain.preferences import Preferences, QuietHours
from tests.console.looks import FAULTS, LOW_CONTRAST
from tests.open_page import PAGE, ask, link
from tests.preference_page.looks import CUT, FOCUSED, PALE_EDGES, SMALL_TARGETS
from tests.preference_page.pseudo import FROM_THE_RIGHT, LONG
from tests.stack import Stack, User, android, iphone

pytestmark = pytest.mark.long

PREFERENCES = "/v1/notification-preferences"
NIGHT = {"starts": "22:00", "ends": "07:00", "time_zone": None, "mode": "silent"}
SLEEPY = 6 * 3600.0  # seconds until a reminder that no test waits for


@dataclass
class Desk:
    """Makes browsers that nobody has used, and collects what their pages complain of."""

    browser: Browser
    stack: Stack
    contexts: list[BrowserContext] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    async def page(self, language: str = "en-GB", **more: Any) -> Page:
        """Open an empty page, in a browser of its own."""
        context = await self.browser.new_context(
            base_url=str(self.stack.http.base_url),
            java_script_enabled=False,
            reduced_motion="reduce",
            extra_http_headers={"accept-language": language},
            **more,
        )
        context.on("console", lambda each: self.complaints.append(each.text) if each.type == "error" else None)
        self.contexts.append(context)
        return await context.new_page()

    async def opened(self, user: User, language: str = "en-GB", **more: Any) -> Page:
        """Follow a new link of somebody's."""
        page = await self.page(language, **more)
        await page.goto(await link(user))
        return page


@pytest.fixture
async def desk(browser: Browser, stack: Stack) -> AsyncIterator[Desk]:
    """A desk at which people sit down one after the other; whatever a page complains of fails the test."""
    desk = Desk(browser, stack)
    yield desk
    for each in desk.contexts:
        await each.close()
    assert [each for each in desk.complaints if "the server responded with a status of 4" not in each] == []


async def stored(user: User) -> Any:
    """Read somebody's preferences by the API."""
    return (await user.call("GET", PREFERENCES)).json()


async def press(page: Page, name: str) -> None:
    """Press a button, and wait until the page that answers is there as a whole."""
    async with page.expect_navigation():
        await page.get_by_role("button", name=name).click()


async def status_text(page: Page) -> str:
    """Read what the page answers to the last request."""
    return await page.locator("[role=status], [role=alert]").inner_text()


async def busy(user: User) -> None:
    """Give somebody all that the page can show: phones of each permission in two zones, a fast, quiet hours."""
    for phone, permission, zone in (
        (iphone(), "denied", "Europe/Vienna"),
        (android(), "granted", "America/New_York"),
        (iphone(), "provisional", "Europe/Vienna"),
        (android(), "undetermined", "Europe/Vienna"),
    ):
        version = f"4.2.0-{'x' * 44}"  # the longest, and nowhere to break it
        more = {"permission": permission, "time_zone": zone, "app_version": version, "os_version": "26.1"}
        await user.register(phone, **more)
    await user.start_fast(due_in=SLEEPY, minutes=(90, 30, 0))
    await user.call("PATCH", PREFERENCES, {"reminder_minutes": [120, 30], "quiet_hours": NIGHT})


async def test_somebody_sees_and_changes_everything_without_a_script(desk: Desk, alice: User) -> None:
    await alice.register(iphone(), permission="denied", time_zone="Europe/Vienna", os_version="26.1")
    await alice.register(android(), permission="granted", time_zone="Europe/Vienna")
    body = {"ends_at": (datetime.now(UTC) + timedelta(hours=6)).isoformat()}
    fast = (await alice.call("PUT", f"/v1/fasting-sessions/{uuid4()}", body)).json()
    page = await desk.opened(alice)

    assert page.url.removesuffix(PAGE) == str(desk.stack.http.base_url).rstrip("/")  # the code has left the address
    [cookie] = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/preferences")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your notifications")
    await expect(page.get_by_text("Not all of your phones show our notifications")).to_be_visible()
    await expect(page.get_by_text("Notifications are switched off on this iPhone.")).to_be_visible()
    await expect(page.get_by_role("listitem")).to_have_count(len(fast["reminders"]))
    await expect(page.get_by_role("listitem").first).to_contain_text("30 minutes before: ")
    await expect(page.get_by_label("From")).to_be_hidden()  # there are no quiet hours

    await page.get_by_label("Reminder 2").fill("60")
    await page.get_by_role("group", name="What the lock screen shows").nth(1).get_by_label("The text").check()
    await page.get_by_label("Keep my phone quiet at certain hours").check()
    await page.get_by_label("From").fill("21:30")
    await page.get_by_label("By the clock of").select_option(label="Tokyo (Japan)")
    await page.get_by_label("Do not send them").check()
    await press(page, "Save")

    assert await status_text(page) == "Saved. This applies from now on."
    assert await stored(alice) == {
        "reminders": True,
        "reminder_minutes": [60, 30],
        "messages": True,
        "reminder_preview": "full",
        "message_preview": "full",
        "quiet_hours": {"starts": "21:30", "ends": "07:00", "time_zone": "Asia/Tokyo", "mode": "withhold"},
        "rev": 1,
    }
    await expect(page.get_by_text("07:00, notifications are not sent.")).to_be_visible()
    await expect(page.get_by_role("listitem")).to_have_count(2)  # the running fast follows
    await page.get_by_label("Reminder 1").fill("")
    await page.get_by_label("Keep my phone quiet at certain hours").uncheck()
    await press(page, "Save")
    after = await stored(alice)
    assert (after["reminder_minutes"], after["quiet_hours"]) == ([30], None)


async def test_one_press_stops_reminders_and_one_messages(desk: Desk, alice: User) -> None:
    page = await desk.opened(alice)

    await press(page, "Stop messages")
    assert await status_text(page) == (
        "Notifications of messages are stopped. You can switch them on again here at any time."
    )
    await expect(page.get_by_role("button", name="Stop messages")).to_have_count(0)
    await press(page, "Stop reminders")
    assert await status_text(page) == "Reminders are stopped. You can switch them on again here at any time."
    after = await stored(alice)
    assert (after["reminders"], after["messages"]) == (False, False)
    await page.get_by_label("Remind me before a fast ends").check()
    await press(page, "Save")

    after = await stored(alice)
    assert (after["reminders"], after["messages"]) == (True, False)


async def test_what_cannot_be_saved_is_reported_linked_and_kept(desk: Desk, alice: User) -> None:
    page = await desk.opened(alice)
    await page.get_by_label("Reminder 2").fill("soon")
    await page.get_by_label("Keep my phone quiet at certain hours").check()
    await page.get_by_label("To", exact=True).fill("22:00")
    await press(page, "Save")

    await expect(page.get_by_role("alert")).to_contain_text("Please look at this again. Nothing was saved yet.")
    assert await page.evaluate("document.activeElement.getAttribute('role')") == "alert"
    await expect(page.get_by_label("Reminder 2")).to_have_value("soon")
    assert await page.get_by_label("Reminder 1").get_attribute("aria-invalid") is None
    for name, field_name, problem in (
        ("How long before the end: write whole numbers only, such as 30", "reminder_minutes", "write whole numbers"),
        ("Quiet hours, To: quiet hours have to end at another time than they start", "ends", "quiet hours have to end"),
    ):
        await page.get_by_role("link", name=name).click()
        assert await page.evaluate("document.activeElement.name") == field_name
        wrong = page.locator(f"[name={field_name}][aria-invalid=true]")
        described = await wrong.get_attribute("aria-describedby")
        await expect(page.locator(f"#{described}")).to_contain_text(problem)
    assert (await stored(alice))["rev"] == 0

    await page.get_by_label("Reminder 2").fill("10")
    await page.get_by_label("To", exact=True).fill("06:00")
    await press(page, "Save")
    after = await stored(alice)
    assert (after["reminder_minutes"], after["quiet_hours"]) == ([30, 10], NIGHT | {"ends": "06:00"})


async def test_what_was_changed_in_the_app_meanwhile_is_not_overwritten_unseen(desk: Desk, alice: User) -> None:
    page = await desk.opened(alice)
    await page.get_by_label("Reminder 1").fill("45")
    await alice.call("PATCH", PREFERENCES, {"messages": False})

    await press(page, "Save")
    assert "Nothing was saved yet." in await status_text(page)
    assert "You changed: How long before the end." in await status_text(page)
    await expect(page.get_by_label("Tell me about new messages")).not_to_be_checked()
    await press(page, "Save")

    after = await stored(alice)
    assert (after["messages"], after["reminder_minutes"]) == (False, [45])


async def test_the_keyboard_alone_is_enough(desk: Desk, alice: User) -> None:
    await busy(alice)
    page = await desk.opened(alice)
    seen: list[str] = []

    async def on_to(name: str) -> None:
        for _ in range(40):
            await page.keyboard.press("Tab")
            here = await page.evaluate(FOCUSED)
            assert here["ring"] != "none", here
            assert 0 <= here["top"] < here["height"], here  # in sight
            seen.append(here["name"])
            if here["name"] == name:
                return
        pytest.fail(f"{name} is not reached: {seen}")

    await on_to("reminder_minutes")
    await page.keyboard.press("Control+a")
    await page.keyboard.type("45")
    await on_to("messages")
    await page.keyboard.press("Space")
    await on_to("message_preview")
    await page.keyboard.press("ArrowUp")
    await on_to("time_zone")
    await page.keyboard.type("Tokyo")
    await on_to("mode")
    await page.keyboard.press("ArrowDown")
    await on_to("Save")
    await page.keyboard.press("Enter")

    await page.wait_for_url("**?saved")
    after = await stored(alice)
    assert (after["reminder_minutes"], after["messages"], after["message_preview"]) == ([45, 30], False, "full")
    assert (after["quiet_hours"]["time_zone"], after["quiet_hours"]["mode"]) == ("Asia/Tokyo", "withhold")
    assert seen[:4] == ["#phones", "Stop reminders", "reminders", "reminder_minutes"]


async def test_enter_in_a_field_saves_and_stops_nothing(desk: Desk, alice: User) -> None:
    page = await desk.opened(alice)

    await page.get_by_label("Reminder 1").fill("15")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")

    assert await status_text(page) == "Saved. This applies from now on."
    after = await stored(alice)
    assert (after["reminder_minutes"], after["reminders"], after["messages"]) == ([15], True, True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_can_be_read_and_heard_by_everybody(
    desk: Desk, alice: User, scheme: Literal["light", "dark"]
) -> None:
    await busy(alice)

    async def look(page: Page, name: str) -> None:
        await page.emulate_media(color_scheme=scheme)
        assert await page.evaluate(FAULTS) == [], name
        assert await page.evaluate(LOW_CONTRAST) == [], name
        assert await page.evaluate(PALE_EDGES) == [], name
        assert await page.evaluate(SMALL_TARGETS) == [], name

    page = await desk.opened(alice)
    await look(page, "page")
    await alice.call("PATCH", PREFERENCES, {"messages": False})
    await press(page, "Save")
    await look(page, "conflict")
    await page.get_by_label("Reminder 1").fill("soon")
    await page.get_by_label("To", exact=True).fill("22:00")
    await press(page, "Save")
    await look(page, "problems")
    await press(page, "Sign out of this page")
    await look(page, "signed out")
    await page.goto(PAGE)
    await look(page, "gone")
    await page.goto(await link(alice, {"for": "email"}))
    await look(page, "button")
    assert await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")


@pytest.mark.parametrize("language", ["de-DE", "uk-UA", "ar-EG", FROM_THE_RIGHT, LONG])
@pytest.mark.usefixtures("_pseudo_languages")
async def test_nothing_is_cut_on_a_small_phone(desk: Desk, alice: User, language: str) -> None:
    await busy(alice)
    page = await desk.opened(alice, language, viewport={"width": 320, "height": 640})

    assert await page.evaluate("document.documentElement.lang") == language
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    assert await page.evaluate(CUT) == []
    await page.locator("[name=reminder_minutes]").first.fill("bald")
    await page.locator("[name=ends]").fill("22:00")
    async with page.expect_navigation():
        await page.locator(".save button").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await page.evaluate(CUT) == []
    assert await page.evaluate(FAULTS) == []
    for path in (PAGE + "none", await link(alice, {"for": "email"})):
        await page.goto(path)
        assert await page.evaluate(CUT) == []


async def test_letters_may_be_twice_as_large(desk: Desk, alice: User) -> None:
    await busy(alice)
    page = await desk.opened(alice, "de-DE", viewport={"width": 640, "height": 900})

    await page.evaluate("document.documentElement.style.fontSize = '200%'")

    assert await page.evaluate("document.documentElement.scrollWidth") == 640
    assert await page.evaluate(CUT) == []


@pytest.mark.usefixtures("_pseudo_languages")
async def test_the_page_is_read_from_the_right_where_its_language_is(desk: Desk, alice: User) -> None:
    await busy(alice)
    page = await desk.opened(alice, FROM_THE_RIGHT)

    async def left(selector: str) -> float:
        box = await page.locator(selector).first.bounding_box()
        assert box is not None
        return box["x"]

    assert await page.evaluate("[document.documentElement.dir, getComputedStyle(document.body).direction]") == [
        "rtl",
        "rtl",
    ]
    assert await left("header svg") > await left("header h1")
    assert await left("[name=reminders]") > await left("[name=reminders] + span")
    assert await left("#starts") > await left("#ends")
    assert await left("#about-reminders") > await left("[form=stopping]")


async def test_a_link_works_once(desk: Desk, alice: User) -> None:
    path = await link(alice)
    first, second = await desk.page(), await desk.page("de-AT")

    await first.goto(path)
    answer = await second.goto(path)

    await expect(first.get_by_role("heading", level=1)).to_have_text("Your notifications")
    assert answer is not None
    assert answer.status == 404
    await expect(second.get_by_role("heading", level=1)).to_have_text("Dieser Link gilt nicht mehr")
    await first.go_back()
    await first.goto(path)
    await expect(first.get_by_role("heading", level=1)).to_have_text("This link does not work any more")
    await first.goto(PAGE)
    await expect(first.get_by_role("heading", level=1)).to_have_text("Your notifications")


async def test_a_link_of_an_email_survives_whoever_looks_at_it_first(desk: Desk, alice: User) -> None:
    path = await link(alice, {"for": "email"})
    for method in ("HEAD", "GET", "GET", "HEAD"):
        answer = await ask(desk.stack, path, method)
        assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
    scanner = await desk.page()
    await scanner.goto(path)  # as scanners do that render what they fetch
    assert await scanner.context.cookies() == []

    page = await desk.page()
    await page.goto(path)
    await press(page, "Open my notifications")

    await expect(page).to_have_url(f"{str(desk.stack.http.base_url).rstrip('/')}{PAGE}")
    await press(page, "Stop messages")
    assert (await stored(alice))["messages"] is False
    await press(scanner, "Open my notifications")
    await expect(scanner.get_by_role("heading", level=1)).to_have_text("This link does not work any more")


async def test_a_link_of_an_app_that_a_browser_fetches_ahead_is_not_used_up(desk: Desk, alice: User) -> None:
    path = await link(alice)
    await ask(desk.stack, path, **{"sec-purpose": "prefetch"})
    await ask(desk.stack, path, "HEAD")

    page = await desk.page()
    await page.goto(path)

    await expect(page).to_have_url(f"{str(desk.stack.http.base_url).rstrip('/')}{PAGE}")
    assert (await stored(alice))["rev"] == 0


async def test_bob_follows_his_link_while_alices_page_is_open_in_another_tab(
    desk: Desk, alice: User, bob: User
) -> None:
    hers = await desk.opened(alice)
    his = await hers.context.new_page()
    await his.goto(await link(bob))
    await hers.get_by_label("Tell me about new messages").uncheck()

    await press(hers, "Save")

    await expect(hers.get_by_role("heading", level=1)).to_have_text("Please do that again")
    assert [(await stored(each))["rev"] for each in (alice, bob)] == [0, 0]
    await his.get_by_label("Reminder 1").fill("7")
    await press(his, "Save")
    assert [(await stored(each))["reminder_minutes"] for each in (alice, bob)] == [[30], [7]]
    await hers.get_by_role("link", name="Back to your notifications").click()
    await expect(hers.get_by_label("Reminder 1")).to_have_value("7")  # bob's, as his tab shows


async def test_a_form_of_another_site_changes_nothing(desk: Desk, alice: User) -> None:
    page = await desk.opened(alice)
    here = str(desk.stack.http.base_url).rstrip("/")

    async def elsewhere(route: Route) -> None:
        button = '<button name="what" value="messages">win</button>'
        form = f'<form method="post" action="{here}/preferences/stop">{button}</form>'
        await route.fulfill(content_type="text/html", body=form)

    await page.route("http://elsewhere.example/", elsewhere)
    await page.goto("http://elsewhere.example/")
    await press(page, "win")

    await expect(page.get_by_role("heading", level=1)).not_to_have_text("Your notifications")
    assert (await stored(alice))["rev"] == 0


async def test_who_signs_out_leaves_nothing_behind(desk: Desk, alice: User) -> None:
    page = await desk.opened(alice)

    await press(page, "Sign out of this page")

    await expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out of this page")
    assert await page.context.cookies() == []
    await page.go_back()
    await page.reload()
    await expect(page.get_by_role("heading", level=1)).to_have_text("This link does not work any more")


DAY = datetime(2026, 6, 1, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("language", "zone", "now", "tonight"),
    [
        ("en-GB", "Europe/Vienna", datetime(2026, 10, 24, 15, tzinfo=UTC), "back, so this lasts 10 hours."),
        ("en-GB", "Europe/Vienna", datetime(2026, 3, 28, 15, tzinfo=UTC), "forward, so this lasts 8 hours."),
        ("en-US", "America/New_York", datetime(2026, 10, 31, 20, tzinfo=UTC), "back, so this lasts 10 hours."),
        ("en-US", "America/New_York", datetime(2026, 3, 7, 20, tzinfo=UTC), "forward, so this lasts 8 hours."),
        (
            "de-DE",
            "Australia/Lord_Howe",
            datetime(2026, 4, 4, 8, tzinfo=UTC),
            "darum dauert das 9 Stunden, 30 Minuten.",
        ),
        (
            "de-DE",
            "Australia/Lord_Howe",
            datetime(2026, 10, 3, 8, tzinfo=UTC),
            "darum dauert das 8 Stunden, 30 Minuten.",
        ),
        ("de-DE", "Europe/Vienna", DAY, "Heute Nacht von 22:00 bis 07:00 Uhr werden Mitteilungen ohne Ton angezeigt."),
    ],
)
async def test_nights_in_which_clocks_change(desk: Desk, language: str, zone: str, now: datetime, tonight: str) -> None:
    quiet = QuietHours(time(22), time(7), None)
    view = View(language, "token", now, zone, Preferences(quiet_hours=quiet), nights=nights(quiet, [zone], now))
    page = await desk.page(language)

    async def serve(route: Route) -> None:
        is_style = "style.css" in route.request.url
        await route.fulfill(
            content_type="text/css" if is_style else "text/html", body=STYLE if is_style else preference_page(view)
        )

    await page.route("**", serve)
    await page.goto(PAGE)

    await expect(page.locator(".night p")).to_contain_text(tonight)
    await expect(page.locator(".night p")).to_be_visible()
