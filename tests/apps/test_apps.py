"""Several apps: each sends with its own credentials, and never with another's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import jwt
import pytest
from temporalio.testing import TimeSkipper, TimeSkippingConfig

from dispatch.relay import Relay
from domain.push import Provider
from push.registry import Rotation
from simulator import DEMO, Simulator
from simulator.wire import WireRequest
from tests.apps.conftest import ONE, ONE_NEXT, ONE_TOO, TWO, AppsFile, replace_file
from tests.stack import Phone, Stack, android, eventually, iphone, make_app, make_stack


async def test_each_app_sends_with_its_own_topic_and_project(stack: Stack, simulator: Simulator) -> None:
    user = stack.user()
    phones = {(app_id, new.__name__): new() for app_id in ("one", "two", None) for new in (iphone, android)}
    for (app_id, _), phone in phones.items():
        await user.register(phone, **({"app_id": app_id} if app_id else {}))

    await stack.finished(await user.start_fast(due_in=1.0))

    topics = {app_id: _one(simulator, phones[app_id, "iphone"]).app for app_id in ("one", "two", None)}
    projects = {app_id: _one(simulator, phones[app_id, "android"]).app for app_id in ("one", "two", None)}
    assert topics == {"one": ONE.topic, "two": TWO.topic, None: DEMO.topic}
    assert projects == {"one": ONE.project, "two": TWO.project, None: DEMO.project}


async def test_apps_with_one_key_share_its_token(
    stack: Stack, rotation: Rotation, apps_file: AppsFile, simulator: Simulator
) -> None:
    phones = {app_id: iphone() for app_id in ("one", "too")}
    apps_file.write(one=apps_file.table("one", ONE), too=apps_file.table("too", ONE_TOO))
    await rotation.look()

    requests = [await _sent(stack, simulator, phone, app_id=app_id) for app_id, phone in phones.items()]

    assert [request.app for request in requests] == [ONE.topic, ONE_TOO.topic]
    assert len({request.raw_headers[b"authorization"] for request in requests}) == 1


async def test_a_rotated_key_is_used_without_a_restart(
    stack: Stack, rotation: Rotation, apps_file: AppsFile, simulator: Simulator
) -> None:
    phone, before = iphone(), rotation.apps.sender(Provider.APNS, "one")
    other = rotation.apps.sender(Provider.APNS, "two")
    first = await _sent(stack, simulator, phone)

    apps_file.write(one=apps_file.table("one", ONE_NEXT), two=apps_file.table("two", TWO))
    await eventually(_replaced(rotation, before))
    second = await _sent(stack, simulator, phone)

    assert (_key_id(first), _key_id(second)) == (ONE.key_id, ONE_NEXT.key_id)
    assert rotation.apps.sender(Provider.APNS, "two") is other  # the others go on as they were
    assert len(simulator.phone(phone.token).log) == 2


async def test_a_rotated_service_account_is_used_without_a_restart(
    stack: Stack, rotation: Rotation, apps_file: AppsFile, simulator: Simulator
) -> None:
    phone, before = android(), rotation.apps.sender(Provider.FCM, "one")
    first = await _sent(stack, simulator, phone)

    file = apps_file.service_account("one")
    replace_file(file, file.read_text().replace('"private_key_id": "simulator"', '"private_key_id": "rotated"'))
    await eventually(_replaced(rotation, before, Provider.FCM))
    second = await _sent(stack, simulator, phone)

    assert first.raw_headers[b"authorization"] != second.raw_headers[b"authorization"]
    assert len(simulator.phone(phone.token).log) == 2


async def test_a_broken_rotation_keeps_what_worked_and_is_reported_once(
    stack: Stack, rotation: Rotation, apps_file: AppsFile, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    phone, before, whole = iphone(), rotation.apps.sender(Provider.APNS, "one"), apps_file.key_file("one").read_text()

    replace_file(apps_file.key_file("one"), whole[: len(whole) // 2])
    for _ in range(3):
        await rotation.look()
    request = await _sent(stack, simulator, phone)

    assert _key_id(request) == ONE.key_id
    assert rotation.apps.sender(Provider.APNS, "one") is before
    assert capsys.readouterr().out.count("credentials not renewed") == 1


async def test_an_app_that_comes_with_the_file_is_sent_to(
    stack: Stack, rotation: Rotation, apps_file: AppsFile, simulator: Simulator
) -> None:
    phone = android()
    apps_file.write(three=apps_file.table("three", TWO))
    await rotation.look()

    request = await _sent(stack, simulator, phone, app_id="three")

    assert request.app == TWO.project


@pytest.mark.long
async def test_a_push_for_an_app_that_went_waits_and_is_dead_in_the_end(
    stack: Stack, rotation: Rotation, apps_file: AppsFile, simulator: Simulator
) -> None:
    phone = iphone()

    async def waits() -> list[Any]:
        return [task for task in await stack.tasks(session_id) if task.last_reason]

    async with _in_virtual_time(stack, apps_file) as (api_stack, skipper):
        user = api_stack.user()
        await user.register(phone, app_id="two")
        apps_file.write(one=apps_file.table("one", ONE))
        await rotation.look()
        session_id = await user.start_fast(due_in=0.5)
        [waiting] = await eventually(waits)
        await skipper.fast_forward(stack.workflow(session_id))

    assert (waiting.state, waiting.last_reason, waiting.attempt_count) == ("pending", "app_not_configured", 0)
    [dead] = await stack.tasks(session_id)
    assert (dead.state, dead.last_reason, dead.attempt_count) == ("dead", "app_not_configured", 0)
    assert len(simulator.requests.for_token(phone.token)) == 0


async def test_a_phone_of_an_unknown_app_is_not_registered(stack: Stack, apps_file: AppsFile) -> None:
    user = stack.user()

    async def registered(app_id: str) -> tuple[int, str | None]:
        body = {"provider": "apns", "token": iphone().token, "app_id": app_id}
        answer = await user.call("PUT", f"/v1/device-tokens/{uuid4()}", body)
        return answer.status_code, answer.json().get("field")

    assert await registered("four") == (422, "app_id")
    assert await registered("one") == (200, None)
    apps_file.write(four=apps_file.table("four", ONE))
    assert await registered("four") == (200, None)
    assert await registered("one") == (422, "app_id")
    replace_file(apps_file.path, "[half")
    assert await registered("four") == (200, None)


@asynccontextmanager
async def _in_virtual_time(stack: Stack, apps_file: AppsFile) -> AsyncIterator[tuple[Stack, TimeSkipper]]:
    """Open another API process of the stack, whose workflows have a clock of their own."""
    skipper = TimeSkipper(stack.temporal, config=TimeSkippingConfig(enabled=False))
    app = make_app(stack.place, ARM_WINDOW="0", APPS_FILE=str(apps_file.path))
    async with make_stack(stack.place, app) as api_stack:
        relay = Relay(stack.sessions, skipper.client, arm_window=0)
        app.state.services = replace(app.state.services, relay=relay)
        yield api_stack, skipper


async def _sent(stack: Stack, simulator: Simulator, phone: Phone, *, app_id: str = "one") -> WireRequest:
    """Remind somebody on this phone; gives the last request."""
    user = stack.user()
    await user.register(phone, app_id=app_id)
    session_id = await user.start_fast(due_in=0.5)
    assert await stack.finished(session_id) == "accepted"
    return simulator.requests.for_token(phone.token)[-1]


def _one(simulator: Simulator, phone: Phone) -> WireRequest:
    [request] = simulator.requests.for_token(phone.token)
    return request


def _replaced(rotation: Rotation, before: object, provider: Provider = Provider.APNS) -> Any:
    async def replaced() -> bool:
        return rotation.apps.sender(provider, "one") is not before

    return replaced


def _key_id(request: WireRequest) -> str:
    return str(jwt.get_unverified_header(request.raw_headers[b"authorization"].decode().split()[1])["kid"])
