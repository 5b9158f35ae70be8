"""What phones do beside receiving, as the admin API and the providers' answers tell it."""

import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime
from typing import Any

import httpx
import pytest

from simulator import Simulator
from tests.simulator.raw_http2 import TOKEN, RawHttp2
from tests.simulator.test_fcm import TOKEN as FCM_TOKEN
from tests.simulator.test_fcm import message
from tests.simulator.tokens import access_token

Push = Callable[..., Coroutine[Any, Any, tuple[int, Any]]]


class Phone:
    """A phone, seen from both sides: its provider's socket and the admin API."""

    def __init__(self, admin: httpx.AsyncClient, token: str, push: Push) -> None:
        self.admin, self.token, self._push = admin, token, push

    async def push(self, title: str = "Title", *, key: str | None = None, ttl: int = 60) -> tuple[int, Any]:
        """Send one push; gives the status, and the reason where it was refused."""
        return await self._push(self.token, title, key or title, ttl)

    async def does(self, what: str, **form: object) -> httpx.Response:
        """Let the phone do something."""
        return await self.admin.post(f"/phones/{self.token}/{what}", json=form or None)

    async def shown(self) -> dict[str, Any]:
        """Look at it."""
        answer = await self.admin.get(f"/phones/{self.token}")
        found: dict[str, Any] = answer.json()
        return found

    async def titles(self) -> list[str]:
        """Read its screen."""
        return [line["title"] for line in (await self.shown())["screen"]]


@pytest.fixture
def iphone(raw: RawHttp2, admin: httpx.AsyncClient) -> Phone:
    """An iPhone."""

    async def push(token: str, title: str, key: str, ttl: int) -> tuple[int, Any]:
        content = {"aps": {"alert": {"title": title}, "sound": "default"}, "task_id": title, "kind": "test", "url": key}
        headers = {"apns-collapse-id": key, "apns-expiration": str(int(time.time()) + ttl if ttl else 0)}
        heard = await raw.push(headers, token=token, body=json.dumps(content).encode())
        return (200, None) if heard.status == 200 else (heard.status or 0, heard.body["reason"])

    return Phone(admin, TOKEN, push)


@pytest.fixture
async def android(sim: Simulator, tls: ssl.SSLContext, admin: httpx.AsyncClient) -> AsyncIterator[Phone]:
    """An Android phone."""
    async with httpx.AsyncClient(base_url=sim.environment["FCM_URL"], verify=tls) as client:
        headers = {"authorization": f"Bearer {await access_token(sim, client)}"}

        async def push(token: str, title: str, key: str, ttl: int) -> tuple[int, Any]:
            content = message(
                token=token,
                notification={"title": title},
                data={"task_id": title, "kind": "test", "url": key},
                android={"ttl": f"{ttl}s", "notification": {"tag": key, "channel_id": "reminders"}},
            )
            answer = await client.post(
                "/v1/projects/fastbell-demo/messages:send", json={"message": content}, headers=headers
            )
            error = answer.json().get("error", {"details": [{}]})
            return answer.status_code, error["details"][0].get("errorCode")

        yield Phone(admin, FCM_TOKEN, push)


@pytest.fixture(params=["iphone", "android"])
def phone(request: pytest.FixtureRequest, iphone: Phone, android: Phone) -> Phone:
    """Either."""
    return iphone if request.param == "iphone" else android


UNREGISTERED = ((410, "Unregistered"), (404, "UNREGISTERED"))


async def test_a_push_is_accepted_and_shown_only_where_the_app_may_show_it(phone: Phone) -> None:
    await phone.push("before")
    denied = await phone.does("permission", permission="denied")
    answers, screens = [], [await phone.titles()]
    for permission in ("denied", "undetermined", "granted"):
        await phone.does("permission", permission=permission)
        answers.append(await phone.push(permission))
        screens.append(await phone.titles())

    assert (denied.status_code, denied.json()["permission"], denied.json()["lines"]) == (200, "denied", 0)
    assert answers == [(200, None)] * 3
    assert screens == [[], [], [], ["granted"]]
    log = (await phone.shown())["log"]
    assert [(entry["fate"], entry["reason"], "sounded_at" in entry) for entry in log] == [
        ("shown", None, True),
        ("dropped", "permission_denied", False),
        ("dropped", "permission_undetermined", False),
        ("shown", None, True),
    ]


async def test_an_iphone_on_trial_lists_a_push_without_sound_or_light(iphone: Phone) -> None:
    declared = await iphone.admin.put(f"/phones/{iphone.token}", json={"provider": "apns", "permission": "provisional"})
    again = await iphone.admin.put(f"/phones/{iphone.token}", json={"provider": "apns", "locale": "de"})

    assert await iphone.push() == (200, None)

    shown = await iphone.shown()
    assert [each.json()["permission"] for each in (declared, again)] == ["provisional"] * 2
    [line], [entry] = shown["screen"], shown["log"]
    assert (line["level"], line["has_sounded"], entry["level"], "sounded_at" in entry) == (
        "passive",
        False,
        "passive",
        False,
    )


async def test_android_knows_no_provisional_permission(android: Phone) -> None:
    declared = await android.admin.put(
        f"/phones/{android.token}", json={"provider": "fcm", "permission": "provisional"}
    )
    await android.push()
    changed = await android.does("permission", permission="provisional")
    unknown = await android.does("permission", permission="maybe")

    assert (declared.status_code, declared.json()["errors"][0]["field"]) == (422, "permission")
    assert (changed.status_code, changed.json()["type"]) == (409, "urn:fastbell:simulator:cannot-happen")
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "permission")
    assert (await android.shown())["permission"] == "granted"


async def test_a_rotated_token_is_unregistered_and_the_new_one_reaches_the_same_phone(phone: Phone) -> None:
    await phone.push("one")
    former = phone.token

    rotated = (await phone.does("rotate")).json()

    assert await phone.push("lost") in UNREGISTERED
    phone.token = rotated["token"]
    assert await phone.push("two") == (200, None)
    assert rotated["token"] != former == rotated["former_token"]
    assert (await phone.titles(), (await phone.shown())["name"]) == (["two", "one"], rotated["name"])
    assert (await phone.admin.get(f"/phones/{former}")).json() == await phone.shown()
    assert [row["token"] for row in (await phone.admin.get("/phones")).json()["items"]] == [rotated["token"]]


async def test_apple_says_when_a_rotated_token_died(iphone: Phone, raw: RawHttp2) -> None:
    await iphone.push()
    rotated = (await iphone.does("rotate")).json()

    heard = await raw.push()

    died_at = datetime.fromisoformat(rotated["former_token_dies_at"]).timestamp()
    assert (heard.status, heard.body) == (410, {"reason": "Unregistered", "timestamp": int(died_at * 1000)})


async def test_a_provider_may_learn_later_of_a_rotation(phone: Phone) -> None:
    await phone.push("one")
    rotated = (await phone.does("rotate", after_seconds=0.4)).json()

    meanwhile = [await phone.push("two")]
    first_at = time.time()
    dies_at = datetime.fromisoformat(rotated["former_token_dies_at"]).timestamp()
    while meanwhile[-1] == (200, None):
        meanwhile.append(await phone.push("three"))
    told_at = time.time()

    assert meanwhile[-1] in UNREGISTERED
    assert told_at >= dies_at
    assert meanwhile[0] == (200, None) or first_at >= dies_at  # a busy machine asks too late
    phone.token = rotated["token"]
    assert (await phone.titles())[-1] == "one"


async def test_a_removed_app_kills_every_token_that_it_had(phone: Phone) -> None:
    await phone.push("one")
    rotated = (await phone.does("rotate", after_seconds=600)).json()

    await phone.does("uninstall")

    assert await phone.push() in UNREGISTERED
    phone.token = rotated["token"]
    assert await phone.push() in UNREGISTERED


@pytest.mark.parametrize("state", ["offline", "uninstall"])
async def test_a_phone_without_network_or_app_fetches_no_token(phone: Phone, state: str) -> None:
    await phone.push()
    await phone.does(state)

    refused = await phone.does("rotate")

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fastbell:simulator:cannot-happen")
    assert (await phone.does("rotate", after_seconds=-1)).status_code == 422


async def test_a_tap_takes_the_line_and_tells_what_the_app_is_handed(phone: Phone) -> None:
    for title in ("one", "two", "three"):
        await phone.push(title, key=f"fastbell://conversations/{title}")

    newest = (await phone.does("tap")).json()
    named = (await phone.does("tap", task_id="one")).json()
    left = await phone.titles()
    gone = await phone.does("tap", task_id="one")
    last = await phone.does("tap")
    empty = await phone.does("tap")

    assert {name: newest[name] for name in ("task_id", "kind", "url")} == {
        "task_id": "three",
        "kind": "test",
        "url": "fastbell://conversations/three",
    }
    assert (newest["line"]["title"], named["task_id"], left, last.json()["task_id"]) == ("three", "one", ["two"], "two")
    assert [each.status_code for each in (gone, empty)] == [409, 409]


async def test_what_waited_comes_as_the_phone_may_show_it_then(phone: Phone) -> None:
    await phone.push("seen")
    await phone.does("offline")
    accepted = [
        await phone.push("one", key="a"),
        await phone.push("now or never", ttl=0),
        await phone.push("two", key="a"),
    ]
    waiting = await phone.titles()
    await phone.does("permission", permission="denied")
    await phone.does("online")

    log = {entry["payload"].get("task_id") or entry["payload"]["message"]["data"]["task_id"]: entry
           for entry in (await phone.shown())["log"]}  # fmt: skip
    assert accepted == [(200, None)] * 3
    assert (waiting, await phone.titles()) == (["seen"], [])
    assert log["two"]["reason"] == "permission_denied"


async def test_google_discards_all_that_it_keeps_where_it_is_too_much(android: Phone) -> None:
    await android.push("seen")
    await android.does("offline")
    for number in range(100):
        await android.push(f"stored {number}", key=f"{number}")
    kept = {entry["fate"] for entry in (await android.shown())["log"][1:]}
    await android.push("one too many")
    await android.push("after")
    await android.does("online")

    reasons = [entry["reason"] for entry in (await android.shown())["log"][1:]]
    assert kept == {"waiting"}
    assert reasons == ["too_many_stored"] * 101 + [None]
    assert await android.titles() == ["after", "seen"]


async def test_a_line_says_its_channel_and_whether_it_sounded(android: Phone, iphone: Phone) -> None:
    await android.push()
    await iphone.push()

    lines = [(await phone.shown())["screen"][0] for phone in (android, iphone)]

    assert [(line["channel"], line["has_sounded"], line["level"]) for line in lines] == [
        ("reminders", True, "active"),
        (None, True, "active"),
    ]
