"""A sign-out without a bearer token: owed by an offline phone, paid late, and no harm to the next person."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import httpx
import pytest

from api.app import SIGN_OUTS
from simulator import Simulator
from tests.housekeeping.sweeps import change
from tests.stack import Phone, Stack, User, android, eventually, iphone, make_app, make_stack, start_held, uncommitted

ALICES, BOBS = "alice's ticket, 32 characters at least", "bob's ticket, with an ä, as long as hers"


def digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


async def register(user: User, phone: Phone, **more: object) -> httpx.Response:
    body = {"provider": phone.provider, "token": phone.token, **more}
    return await user.call("PUT", f"/v1/device-tokens/{phone.installation_id}", body)


async def pay(stack: Stack, installation_id: UUID, ticket: str) -> httpx.Response:
    return await stack.http.post("/v1/sign-outs", json={"installation_id": str(installation_id), "ticket": ticket})


async def patiently(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Make a call again while others hold its rows for longer than a request waits."""
    while (answer := await call()).status_code == 503:
        pass
    return answer


async def owners(stack: Stack, phone: Phone) -> list[str]:
    query = "SELECT user_id FROM device_tokens WHERE active AND installation_id = :id"
    return [row.user_id for row in await stack.rows(query, id=phone.installation_id)]


async def test_a_ticket_signs_its_own_registration_out_and_is_reported_in_the_history(stack: Stack) -> None:
    alice, phone = stack.user(), iphone()
    assert (await register(alice, phone, sign_out_digest=digest(ALICES))).status_code == 200

    for wrong in (BOBS, ALICES.upper()):
        assert (await pay(stack, phone.installation_id, wrong)).status_code == 204
    assert await owners(stack, phone) == [alice.user_id]
    for _ in range(2):
        assert (await pay(stack, phone.installation_id, ALICES)).status_code == 204
    assert (await pay(stack, uuid4(), ALICES)).status_code == 204

    [row] = (await alice.call("GET", "/v1/device-tokens")).json()["items"]
    assert (row["active"], row["inactive_reason"], row["refresh_required"]) == (False, "signed_out", False)
    events = "SELECT event FROM device_token_events WHERE device_id = :id ORDER BY id"
    assert [event.event for event in await stack.rows(events, id=row["id"])] == ["registered", "signed_out"]


async def test_a_ticket_that_comes_late_cannot_hurt_the_next_owner(stack: Stack) -> None:
    alice, bob, phone = stack.user(), stack.user(), iphone()
    await register(alice, phone, sign_out_digest=digest(ALICES))
    assert (
        await register(bob, phone, sign_out_digest=digest(BOBS))
    ).status_code == 200  # the same token: the same phone

    await pay(stack, phone.installation_id, ALICES)

    assert await owners(stack, phone) == [bob.user_id]


@pytest.fixture(scope="module")
async def second(stack: Stack) -> AsyncIterator[Stack]:
    """Another API process on the same database: what waits for a row in the first one holds nothing up there."""
    async with make_stack(stack.place, make_app(stack.place)) as api_stack:
        yield api_stack


async def test_a_registration_that_hangs_until_its_sign_out_is_paid_registers_nobody(
    stack: Stack, second: Stack
) -> None:
    alice, old, phone = stack.user(), iphone(), iphone()
    await register(alice, old)  # the app was installed before, and the system gives the same token again
    late = Phone(phone.provider, old.token, phone.installation_id)
    row = "SELECT 1 FROM device_tokens WHERE installation_id = :id FOR UPDATE"

    async with uncommitted(stack, row, id=old.installation_id):
        hanging = asyncio.create_task(patiently(lambda: register(alice, late, sign_out_digest=digest(ALICES))))
        await eventually(stack.someone_waits_for_a_lock)
        assert (await patiently(lambda: pay(second, phone.installation_id, ALICES))).status_code == 204
        assert not hanging.done()

    refused = await hanging
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fastbell:problem:ticket-spent")
    assert await owners(stack, phone) == []
    assert await owners(stack, old) == [alice.user_id]  # a refused registration changes nothing
    assert (await register(alice, late, sign_out_digest=digest(BOBS))).status_code == 200
    assert await owners(stack, phone) == [alice.user_id]


@pytest.mark.parametrize("paid_by", ["its payment", "the next person's registration"])
async def test_a_registration_that_hangs_until_the_next_person_has_the_phone_does_not_take_it_back(
    stack: Stack, second: Stack, paid_by: str
) -> None:
    alice, bob, phone = stack.user(), second.user(), iphone()
    alone = "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"

    async with uncommitted(stack, alone, name=f"user/{alice.user_id}"):
        hanging = asyncio.create_task(patiently(lambda: register(alice, phone, sign_out_digest=digest(ALICES))))
        await eventually(stack.someone_waits_for_a_lock)
        if paid_by == "its payment":
            assert (await patiently(lambda: pay(second, phone.installation_id, ALICES))).status_code == 204
        former = {} if paid_by == "its payment" else {"former_ticket": ALICES}
        moved = await patiently(lambda: register(bob, phone, sign_out_digest=digest(BOBS), **former))
        assert moved.status_code == 200
        assert not hanging.done()

    refused = await hanging
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fastbell:problem:ticket-spent")
    assert await owners(stack, phone) == [bob.user_id]


async def test_a_ticket_is_remembered_for_its_installation_and_for_a_while(stack: Stack) -> None:
    alice, phone, tablet = stack.user(), iphone(), android()
    for installation_id in (phone.installation_id, tablet.installation_id, phone.installation_id):
        await pay(stack, installation_id, ALICES)
    assert (await register(alice, phone, sign_out_digest=digest(ALICES).upper())).status_code == 409
    assert (await register(alice, phone, sign_out_digest=digest(BOBS), former_ticket=BOBS)).status_code == 200
    assert (await register(alice, phone, sign_out_digest=digest(BOBS))).status_code == 200  # its own ticket is not used

    past = "UPDATE spent_tickets SET expires_at = now() WHERE installation_id = :id"
    await change(stack, past, id=phone.installation_id)
    assert (await register(alice, phone, sign_out_digest=digest(ALICES))).status_code == 200
    assert (await register(alice, tablet, sign_out_digest=digest(ALICES))).status_code == 409


async def test_a_sign_out_with_the_bearer_uses_up_the_ticket_of_the_caller_and_of_nobody_else(stack: Stack) -> None:
    alice, bob, phone = stack.user(), stack.user(), iphone()
    await register(alice, phone, sign_out_digest=digest(ALICES))
    leave = f"/v1/device-tokens/{phone.installation_id}"
    assert (await alice.call("DELETE", leave)).status_code == 204

    late = await register(alice, phone, sign_out_digest=digest(ALICES))
    assert (late.status_code, late.json()["type"]) == (409, "urn:fastbell:problem:ticket-spent")
    assert await owners(stack, phone) == []
    for _ in range(2):
        assert (await register(bob, phone, sign_out_digest=digest(BOBS))).status_code == 200
        assert (await alice.call("DELETE", leave)).status_code == 204
        assert await owners(stack, phone) == [bob.user_id]


async def test_of_one_sign_in_the_registration_with_the_highest_number_counts(stack: Stack) -> None:
    alice, bob, new, old = stack.user(), stack.user(), iphone(), iphone()
    old = Phone(old.provider, old.token, new.installation_id)
    active = "SELECT token FROM device_tokens WHERE active AND installation_id = :id"

    async def put(user: User, phone: Phone, ticket: str, **more: object) -> tuple[int, str]:
        answer = await register(user, phone, sign_out_digest=digest(ticket), **more)
        [row] = await stack.rows(active, id=phone.installation_id)
        return answer.status_code, answer.json().get("type", "").rpartition(":")[2] or row.token

    outdated = (409, "registration-outdated")
    assert await put(alice, old, ALICES, sequence=1) == (200, old.token)
    for _ in range(2):
        assert await put(alice, new, ALICES, sequence=2**53 - 1) == (200, new.token)
    for late in (0, 1, 2**53 - 2):
        assert await put(alice, old, ALICES, sequence=late) == outdated
        assert await owners(stack, new) == [alice.user_id]
    assert await put(alice, old, ALICES) == (200, old.token)  # an app that sends no number
    assert await put(alice, new, ALICES, sequence=2**53 - 2) == outdated
    assert await put(bob, new, BOBS, sequence=0, former_ticket=ALICES) == (200, new.token)
    assert await put(alice, new, ALICES, sequence=0) == (409, "ticket-spent")
    anew = "alice's next ticket, as long as the first"
    assert await put(alice, old, anew, sequence=0, former_ticket=BOBS) == (200, old.token)


async def test_a_registration_of_the_same_person_names_its_newest_ticket_only(stack: Stack) -> None:
    alice, phone = stack.user(), iphone()
    await register(alice, phone, sign_out_digest=digest(ALICES))
    await register(alice, phone, sign_out_digest=digest(BOBS).upper())

    await pay(stack, phone.installation_id, ALICES)
    assert await owners(stack, phone) == [alice.user_id]
    await pay(stack, phone.installation_id, BOBS)
    assert await owners(stack, phone) == []


@pytest.mark.parametrize("former", [None, BOBS])
async def test_an_installation_with_a_digest_moves_only_with_its_token_or_its_ticket(
    stack: Stack, former: str | None
) -> None:
    alice, bob, phone = stack.user(), stack.user(), iphone()
    await register(alice, phone, sign_out_digest=digest(ALICES))
    rotated = Phone(phone.provider, iphone().token, phone.installation_id)

    refused = await register(bob, rotated, former_ticket=former)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fastbell:problem:installation-taken")
    assert await owners(stack, phone) == [alice.user_id]

    assert (await register(bob, rotated, former_ticket=ALICES)).status_code == 200
    assert await owners(stack, phone) == [bob.user_id]


async def test_a_ticket_is_of_one_installation_and_frees_no_other(stack: Stack) -> None:
    alice, bob, phone, tablet = stack.user(), stack.user(), iphone(), android()
    await register(alice, phone, sign_out_digest=digest(ALICES))
    await register(alice, tablet, sign_out_digest=digest("of the tablet, as long as the others are"))

    await pay(stack, tablet.installation_id, ALICES)
    moved = await register(bob, Phone("fcm", android().token, tablet.installation_id), former_ticket=ALICES)

    assert moved.status_code == 409
    assert await owners(stack, tablet) == await owners(stack, phone) == [alice.user_id]


async def test_the_same_token_is_the_same_phone_in_whatever_case_it_is_reported(stack: Stack) -> None:
    alice, bob, phone = stack.user(), stack.user(), iphone()
    await register(alice, phone, sign_out_digest=digest(ALICES).upper())
    assert (await register(bob, Phone(phone.provider, phone.token.upper(), phone.installation_id))).status_code == 200
    assert await owners(stack, phone) == [bob.user_id]


async def test_of_two_persons_who_race_for_an_installation_one_has_it_and_the_other_is_told(stack: Stack) -> None:
    for _ in range(5):
        racers, phone = [stack.user(), stack.user()], iphone()
        answers = await asyncio.gather(*[
            register(
                racer,
                Phone(phone.provider, iphone().token, phone.installation_id),
                sign_out_digest=digest(f"{racer.user_id}, made as long as a ticket is"),
            )
            for racer in racers
        ])  # fmt: skip

        assert sorted(answer.status_code for answer in answers) == [200, 409]
        [refused] = [answer for answer in answers if answer.status_code == 409]
        assert refused.json()["type"] == "urn:fastbell:problem:installation-taken"
        winner = racers[[answer.status_code for answer in answers].index(200)]
        assert await owners(stack, phone) == [winner.user_id]


async def test_a_refused_move_changes_nothing_anywhere(stack: Stack) -> None:
    alice, bob, phone, other = stack.user(), stack.user(), iphone(), iphone()
    await register(alice, phone, sign_out_digest=digest(ALICES))
    await register(bob, other, sign_out_digest=digest(BOBS))

    taken = await register(bob, Phone(other.provider, other.token, phone.installation_id))

    assert taken.status_code == 409
    assert (await owners(stack, phone), await owners(stack, other)) == ([alice.user_id], [bob.user_id])


async def test_a_sign_out_that_is_paid_while_a_push_is_held_stops_it(stack: Stack, simulator: Simulator) -> None:
    due_in, is_late = 1.5, True
    while is_late:  # paid at the due instant only: the machine stood still
        alice, phone = stack.user(), iphone()
        await register(alice, phone, sign_out_digest=digest(ALICES))
        [session_id] = await start_held(alice, due_in=due_in)

        await pay(stack, phone.installation_id, ALICES)

        due = "SELECT clock_timestamp() > ends_at - interval '1 minute' FROM fasting_sessions WHERE id = :id"
        [[is_late]] = await stack.rows(due, id=session_id)
        due_in *= 2

    await stack.finished(session_id)
    assert not simulator.requests.for_token(phone.token)
    [task] = await stack.tasks(session_id)
    assert (task.state, task.last_reason) == ("withdrawn", "no_active_token")


async def test_an_installation_without_a_digest_moves_as_it_always_did(stack: Stack) -> None:
    alice, bob, phone = stack.user(), stack.user(), iphone()
    await register(alice, phone)
    assert (await register(bob, Phone(phone.provider, iphone().token, phone.installation_id))).status_code == 200
    assert await owners(stack, phone) == [bob.user_id]


async def test_a_person_who_signed_out_leaves_the_installation_free(stack: Stack) -> None:
    alice, bob, phone = stack.user(), stack.user(), iphone()
    await register(alice, phone, sign_out_digest=digest(ALICES))
    await pay(stack, phone.installation_id, ALICES)
    assert (await register(bob, Phone(phone.provider, iphone().token, phone.installation_id))).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sign_out_digest", "0" * 63),
        ("sign_out_digest", "g" * 64),
        ("former_ticket", "x" * 31),
        ("former_ticket", "x" * 129),
        ("former_ticket", "x" * 40 + "\n"),
        ("sequence", 7),  # without a digest
        *[("sequence", wrong) for wrong in (-1, 2**53, "7", 8.0, True)],
    ],
)
async def test_what_cannot_be_a_digest_a_ticket_or_a_number_is_refused_by_name(
    stack: Stack, field: str, value: object
) -> None:
    digests = {} if value == 7 else {"sign_out_digest": digest(ALICES)}
    refused = await register(stack.user(), iphone(), **digests | {field: value})
    assert (refused.status_code, refused.json()["field"]) == (422, field)


async def test_sign_outs_of_one_address_are_limited(stack: Stack) -> None:
    limit = int(SIGN_OUTS.partition("/")[0])
    answers = [await pay(stack, uuid4(), ALICES) for _ in range(2 * limit)]

    assert {answer.status_code for answer in answers} == {204, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1


async def test_what_an_app_tells_of_its_phone_is_kept_and_never_refused(stack: Stack) -> None:
    alice, phone = stack.user(), iphone()
    answer = await register(alice, phone, permission="denied", os_version=" 18.1\0 ")
    assert (answer.json()["permission"], answer.json()["os_version"]) == ("denied", "18.1")

    for odd in ("allowed", None, 7, ["granted"]):
        answer = await register(alice, phone, permission=odd, os_version=odd)
        assert answer.status_code == 200, answer.text
        assert answer.json()["permission"] is None
