"""The pages of events and webhooks: the same as the API's, what mends a webhook, and nothing secret."""

import re
from collections.abc import AsyncIterator
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from tests.console.visits import Visit, words
from tests.events.hooks import Hook, hooked, register_some
from tests.events.receiver import Receiver, receiving
from tests.stack import Stack, User, eventually, iphone

NUMBER = re.compile(r'<td class="n">(\d+)</td>\s*</tr>')


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver of webhooks."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def hook(stack: Stack, receiver: Receiver) -> AsyncIterator[Hook]:
    """A webhook for registrations."""
    async with hooked(stack, receiver, "device_token.registered") as hook:
        yield hook


async def test_events_are_listed_the_newest_first_by_type_and_person(stack: Stack, carol: Visit, alice: User) -> None:
    await register_some(stack, 3)
    await alice.register(iphone())
    session_id = await alice.start_fast(due_in=0.3)
    await stack.finished(session_id)
    [task] = await stack.tasks(session_id)

    hers = f"/console/events?{urlencode({'user': alice.user_id})}"

    async def is_numbered() -> bool:  # other tests may have left thousands of events before hers
        return "push.accepted</code>" in (await carol.get(hers)).text

    await eventually(is_numbered)

    all_of_hers = await carol.get(hers)
    one = await carol.get(f"/console/events?{urlencode({'user': alice.user_id, 'type': 'push.accepted'})}")
    any_type = await carol.get(f"/console/events?{urlencode({'user': alice.user_id, 'type': ''})}")  # as the form sends
    of_all = await carol.get("/console/events?type=device_token.registered")

    numbers = [int(found) for found in NUMBER.findall(all_of_hers.text)]
    assert numbers == sorted(numbers, reverse=True)
    assert NUMBER.findall(any_type.text) == NUMBER.findall(all_of_hers.text)
    assert "push.accepted" in words(all_of_hers)
    assert "device_token.registered" in words(all_of_hers)
    assert NUMBER.findall(one.text) == [str(numbers[0])]
    assert f'href="/console/push/{task.task_id}"' in one.text
    assert len(NUMBER.findall(of_all.text)) >= 4
    assert "push.accepted" not in words(of_all).partition("Number")[2]
    assert "No event matches" in words(await carol.get(f"/console/events?user={uuid4()}"))
    for odd in ("type=nonsense", "before=0", "before=" + "9" * 30, "user=%00", f"user={'x' * 201}"):
        assert (await carol.get(f"/console/events?{odd}")).status_code == 422, odd


async def test_events_are_paged_without_a_gap(stack: Stack, carol: Visit) -> None:
    user = await register_some(stack, 20)
    for _ in range(2):
        await user.register(*(iphone() for _ in range(20)))

    pages, path = [], f"/console/events?{urlencode({'user': user.user_id})}"
    while path:
        page = await carol.get(path)
        pages.append([int(found) for found in NUMBER.findall(page.text)])
        following = re.search(r'href="([^"]*before=[^"]*)">Earlier', page.text)
        path = following[1].replace("&amp;", "&") if following else ""

    listed = [number for page in pages for number in page]
    rows = await stack.rows("SELECT number FROM events WHERE user_id = :u ORDER BY number DESC", u=user.user_id)
    assert listed == [row.number for row in rows]
    assert [len(page) for page in pages[:-1]] == [50] * (len(pages) - 1)
    assert len(pages) > 1


async def test_a_webhook_is_tested_and_its_deliveries_are_shown(carol: Visit, hook: Hook, receiver: Receiver) -> None:
    sent = await carol.post(f"/console/webhooks/{hook.id}/test")
    assert (sent.status_code, sent.headers["location"]) == (303, f"/console/webhooks/{hook.id}?done=test")

    async def accepted() -> bool:
        return "webhook.test accepted 204" in words(await carol.get(f"/console/webhooks/{hook.id}"))

    await eventually(accepted)
    assert [request.json["type"] for request in receiver.requests] == ["webhook.test"]
    listed, page = await carol.get("/console/webhooks"), await carol.get(sent.headers["location"])
    assert f'href="/console/webhooks/{hook.id}"' in listed.text
    for shown in (listed, page):
        assert hook.secret not in shown.text
        assert receiver.url not in shown.text  # its path may be a secret
    assert await _deeds(carol, hook) == ["test_webhook"]
    assert (await carol.get(f"/console/webhooks/{uuid4()}")).status_code == 404


async def test_what_a_webhook_missed_is_sent_again_and_a_disabled_one_is_enabled(
    stack: Stack, carol: Visit, hook: Hook, receiver: Receiver
) -> None:
    receiver.answer(410)
    await register_some(stack, 1)

    async def is_disabled() -> bool:
        return "the receiver answered 410 Gone" in words(await carol.get(f"/console/webhooks/{hook.id}"))

    await eventually(is_disabled)
    refused = await carol.post(f"/console/webhooks/{hook.id}/test")
    assert (refused.status_code, "Enable it first" in words(refused)) == (409, True)
    receiver.answer(204)
    assert (await carol.post(f"/console/webhooks/{hook.id}/enable")).status_code == 303
    assert "again" in words(await carol.get(f"/console/webhooks/{hook.id}"))
    assert (await carol.post(f"/console/webhooks/{hook.id}/redrive")).status_code == 303
    await hook.ends_as(1, state="accepted")
    assert await _deeds(carol, hook) == ["enable_webhook", "redrive_webhook"]


async def _deeds(carol: Visit, hook: Hook) -> list[str]:
    query = "SELECT action FROM support_actions WHERE actor = :actor AND subject_id = :id AND subject_kind = 'webhook'"
    return [row.action for row in await carol.stack.rows(f"{query} ORDER BY id", actor=carol.user_id, id=hook.id)]
