"""The console as a person uses it, in Chromium: by mouse, by keyboard alone, on a phone, by day and by night."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from api.console.session import COOKIE, PATH
from commands.sign_in import sign_in_code
from db.support_actions import Actor
from tests.console.looks import FAULTS, LOW_CONTRAST
from tests.console.visits import Visit, engage
from tests.events.hooks import Hook, hooked
from tests.events.receiver import receiving
from tests.stack import Stack, User, android, eventually, iphone
from tests.support.dead import dead_task

PATHS = (
    "/console/",
    "/console/?hours=24",
    "/console/person",
    "/console/person?user={user}",
    "/console/find?q={task}",
    "/console/dead?environment=production",
    "/console/dead?user_id={user}",
    "/console/dead/redrive?user_id={user}",
    "/console/push/{task}",
    "/console/events",
    "/console/webhooks",
    "/console/api-keys",
    "/console/analytics",
    "/console/nothing",
)

# The columns that one came for, which a small phone shows without scrolling a table
CAME_FOR = {
    "The state of each route in each worker": ["Route", "State", "Waiting"],
    "Device tokens, the last seen first": ["Phone", "State", "Notifications"],
    "The last fasting sessions and their reminders": ["Fast", "State", "Reminders"],
    "Dead pushes, the latest due first": ["Push", "Person", "Redrive"],
    "Pushes by day, kind and app": ["Day", "Kind", "Route", "Due", "Accepted"],
    "Events, the newest first": ["When", "Type", "Person"],
    "Webhooks, the newest first": ["Receiver", "State", "Dead"],
    "Deliveries, the latest first": ["Event", "State", "Answer"],
}
COLUMNS_IN_SIGHT = """() => Object.fromEntries([...document.querySelectorAll('table')].map(table => [
  (table.caption || {textContent: ''}).textContent.trim(),
  [...table.querySelectorAll('thead th')]
    .filter(head => head.getBoundingClientRect().right <= document.documentElement.clientWidth)
    .map(head => head.textContent),
]))"""


@pytest.fixture
async def context(browser: Browser, stack: Stack) -> AsyncIterator[BrowserContext]:
    """A browser that nobody has used; whatever a page complains of in its console fails the test."""
    context = await browser.new_context(base_url=str(stack.http.base_url), reduced_motion="reduce")
    complaints: list[str] = []
    context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield context
    await context.close()
    assert [each for each in complaints if "404" not in each] == []


@pytest.fixture
async def hook(stack: Stack) -> AsyncIterator[Hook]:
    """A webhook that was sent something, with a path as long as a secret."""
    async with receiving() as receiver:
        receiver.url += "x" * 300
        async with hooked(stack, receiver, "device_token.registered") as hook:
            await hook.call("POST", "/test")
            await hook.ends_as(1, state="accepted")
            yield hook


@pytest.fixture
async def signed_in(context: BrowserContext, stack: Stack, carol: Visit) -> Page:
    """A page of somebody who is signed in."""
    return await _sign_in(context, stack, carol)


async def test_the_documentation_of_the_api_needs_nothing_from_elsewhere(stack: Stack, context: BrowserContext) -> None:
    page, asked = await context.new_page(), list[str]()
    page.on("request", lambda request: asked.append(request.url))

    await page.goto("/docs")

    await expect(page.get_by_text("/v1/fasting-sessions/{session_id}/cancel").first).to_be_visible()
    elsewhere = [url for url in asked if not url.startswith((str(stack.http.base_url), "data:", "blob:"))]
    assert elsewhere == []


async def test_a_supporter_finds_a_person_sends_a_test_push_and_mends(
    stack: Stack, context: BrowserContext, alice: User
) -> None:
    phone, pixel = iphone(), android()
    task_ids = await dead_task(alice, phone, pixel, ends_in=120)
    brake_id = await engage(stack, "app.of.the.browser")
    page = await context.new_page()

    await page.goto("/console/")
    await page.get_by_label("One-time code").fill(
        await sign_in_code(stack.sessions, Actor("carol"), timedelta(minutes=1))
    )
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    [cookie] = await context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/console")
    assert await page.evaluate("document.cookie") == ""

    await page.get_by_role("button", name="Resume APNs · app.of.the.browser · sandbox").click()
    await expect(page.get_by_role("status")).to_have_text("The route is resumed and sends again.")
    [brake] = await stack.rows("SELECT resumed_by FROM brakes WHERE id = :id", id=brake_id)
    assert brake.resumed_by == "carol"

    await page.get_by_role("link", name="People").click()
    await page.get_by_label("User id").fill(alice.user_id)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text(alice.user_id)
    await page.get_by_label("Test push to").select_option(str(phone.installation_id))
    await page.get_by_role("button", name="Send test push").click()
    await expect(page.get_by_text("It is settled.")).to_be_visible()
    await expect(page.locator("td .state.accepted")).to_have_count(1)
    [line] = stack.place.simulator.phone(phone.token).screen
    assert line.notification.data["kind"] == "test"

    await page.get_by_role("link", name="Dead pushes").click()
    await page.get_by_label("User id").fill(alice.user_id)
    await page.get_by_role("button", name="Filter").click()
    await page.get_by_role("link", name=str(task_ids[0])[:8]).click()
    await page.get_by_role("button", name="Redrive this push").click()
    await expect(page.get_by_role("cell", name="redrive")).to_be_visible()
    await page.go_back()
    await page.goto(f"/console/dead?user_id={alice.user_id}")
    await page.get_by_role("link", name="Redrive all matches…").click()
    await page.get_by_role("button", name="Redrive 1 push").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Redriven")

    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to the console")
    assert await context.cookies() == []
    await page.goto("/console/dead")
    await expect(page.get_by_label("One-time code")).to_be_visible()


async def test_the_keyboard_alone_is_enough(signed_in: Page, alice: User) -> None:
    await alice.register(iphone())
    await signed_in.goto(f"/console/person?user={alice.user_id}")
    await signed_in.keyboard.press("Tab")
    assert await _focused(signed_in) == "Skip to the content"
    assert await signed_in.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    await signed_in.keyboard.press("Enter")
    seen = []
    for _ in range(12):
        await signed_in.keyboard.press("Tab")
        assert await signed_in.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        seen.append(await _focused(signed_in))
        if seen[-1] == "Send test push":
            break

    assert seen[0] == "q"  # past the navigation, at the first field of the content
    assert seen[-4:-1] == ["phones", "installation_id", "validate_only"]
    await signed_in.keyboard.press("Enter")
    await expect(signed_in.get_by_role("heading", level=1)).to_contain_text("Test push to")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_can_be_read_and_heard_by_everybody(
    signed_in: Page, alice: User, scheme: Literal["light", "dark"]
) -> None:
    [task_id] = await dead_task(alice, iphone(), ends_in=300)
    await alice.start_fast(due_in=600)
    await signed_in.emulate_media(color_scheme=scheme)

    for path in PATHS:
        await signed_in.goto(path.format(user=alice.user_id, task=task_id))
        assert await signed_in.evaluate(FAULTS) == [], path
        assert await signed_in.evaluate(LOW_CONTRAST) == [], (path, scheme)
    await signed_in.context.clear_cookies()
    await signed_in.goto("/console/sign-in")
    assert await signed_in.evaluate(FAULTS) == []
    assert await signed_in.evaluate(LOW_CONTRAST) == []


async def test_the_looks_find_what_is_wrong(context: BrowserContext) -> None:
    page = await context.new_page()
    await page.set_content(
        "<title>t</title><h1>a</h1><h3>b</h3><input name=c><table><tr><th>d</table><section id=e></section><i id=e></i>"
        "<a href=x></a><svg></svg><div class=wide></div><label for=f>g</label><p style='color: #999'>pale</p>"
    )

    assert await page.evaluate(FAULTS) == [
        "no lang",
        "not one header",
        "not one main",
        "heading leaps: b",
        "no label: c",
        'no name: <a href="x"></a>',
        "picture without words",
        "table without caption",
        "th without scope: d",
        "no name: SECTION",
        "what scrolls cannot be reached by the keyboard",
        "for leads nowhere: f",
        "id twice: e",
        "id twice: e",
        "against the policy: P",
    ]
    assert await page.evaluate(LOW_CONTRAST) == ["2.85: P pale"]


@pytest.mark.parametrize(
    ("zone", "runs_scripts"), [("America/New_York", True), ("Asia/Tokyo", True), ("America/New_York", False)]
)
async def test_times_are_those_of_the_browser_with_the_persons_beside_them(
    browser: Browser, stack: Stack, carol: Visit, alice: User, zone: str, runs_scripts: bool
) -> None:
    await alice.register(iphone(), time_zone="Asia/Tokyo")
    session_id = await alice.start_fast(due_in=40 * 3600)  # not today, whatever the zone
    due_at = (await alice.call("GET", f"/v1/fasting-sessions/{session_id}")).json()["reminders"][0]["due_at"]
    due = datetime.fromisoformat(due_at)
    context = await browser.new_context(
        base_url=str(stack.http.base_url), timezone_id=zone, java_script_enabled=runs_scripts
    )
    try:
        page = await _sign_in(context, stack, carol)
        await page.goto(f"/console/person?user={alice.user_id}")

        here = f"{due.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}" if runs_scripts else f"{due:%Y-%m-%d %H:%M:%S} UTC"
        await expect(page.locator("summary .at time").first).to_have_text(here)
        await expect(page.locator("summary .text time").first).to_have_text(here)
        theirs = page.locator("summary .at .theirs").first
        await expect(theirs).to_have_text(f"({due.astimezone(ZoneInfo('Asia/Tokyo')):%a %H:%M:%S}, Tokyo)")
        await expect(theirs).to_be_visible(visible=zone != "Asia/Tokyo")
        of_browser = f"Times are in the zone of this browser, {zone.replace('_', ' ')}."
        await expect(page.locator("footer")).to_have_text(of_browser if runs_scripts else "Times are UTC.")
    finally:
        await context.close()


async def test_pages_fit_on_a_small_phone(signed_in: Page, carol: Visit, alice: User, hook: Hook) -> None:
    [task_id] = await dead_task(alice, iphone(), ends_in=300)
    await alice.stack.finished(await alice.start_fast(due_in=0.3))

    async def lists_routes() -> bool:  # of the first send, once the worker has reported it
        return "The state of each route" in (await carol.get("/console/")).text

    await eventually(lists_routes)
    await signed_in.set_viewport_size({"width": 360, "height": 740})

    seen: dict[str, list[str]] = {}
    for path in (*PATHS, f"/console/webhooks/{hook.id}"):
        await signed_in.goto(path.format(user=alice.user_id, task=task_id))
        assert await signed_in.evaluate("document.documentElement.scrollWidth") <= 360, path
        seen |= await signed_in.evaluate(COLUMNS_IN_SIGHT)
    assert {name: seen[name][: len(columns)] for name, columns in CAME_FOR.items()} == CAME_FOR
    await signed_in.goto("/console/")
    targets = await signed_in.evaluate(
        "[...document.querySelectorAll('nav a')].map(a => a.getBoundingClientRect().height)"
    )
    assert min(targets) >= 24  # WCAG 2.2, target size


async def test_a_link_from_another_site_leads_in_without_a_second_sign_in(signed_in: Page, stack: Stack) -> None:
    port = stack.http.base_url.port

    async def elsewhere(route: Route) -> None:
        await route.fulfill(content_type="text/html", body=f'<a href="http://127.0.0.1:{port}/console/dead">alert</a>')

    await signed_in.route("http://elsewhere.example/", elsewhere)
    await signed_in.goto("http://elsewhere.example/")
    await signed_in.get_by_role("link", name="alert").click()

    await expect(signed_in.get_by_role("heading", level=1)).to_have_text("Dead pushes")


async def _sign_in(context: BrowserContext, stack: Stack, carol: Visit) -> Page:
    where = f"{stack.http.base_url}{PATH}"
    await context.add_cookies(
        [{"name": COOKIE, "value": carol.value, "url": where, "httpOnly": True, "sameSite": "Strict"}]
    )
    return await context.new_page()


async def _focused(page: Page) -> str:
    return str(
        await page.evaluate(
            "(e => e.name || e.getAttribute('aria-labelledby') || e.textContent.trim())(document.activeElement)"
        )
    )
