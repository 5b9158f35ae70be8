"""How many requests of one caller run at a time: the ninth waits, then is refused; nobody else notices."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import pytest

from api.http.auth import Caller
from api.http.rates import MAX_WAITING, RequestPermit, RunningRequests
from domain.problems import LimitReached
from tests.busy import quick, soon
from tests.stack import Stack, StackPlace, User, eventually, make_app, make_stack, uncommitted
from tests.streaming import streaming

PREFERENCES = "/v1/notification-preferences"
NEVER = datetime.max.replace(tzinfo=UTC)
HELD = "SELECT 1 FROM fasting_sessions WHERE id = ANY(:ids) FOR UPDATE"


@pytest.fixture(scope="module")
async def eight(detached: StackPlace) -> AsyncIterator[Stack]:
    """An API that grants what it does by default."""
    async with make_stack(detached, make_app(detached)) as stack:
        yield stack


async def test_eight_requests_of_a_user_run_the_ninth_waits_two_seconds_and_others_notice_nothing(eight: Stack) -> None:
    user, other = eight.user(), eight.user()
    fasts = [await user.start_fast(due_in=3600) for _ in range(8)]
    loop = asyncio.get_running_loop()
    refusals, served = list[tuple[httpx.Response, float]](), list[int]()

    async with uncommitted(eight, HELD, ids=fasts):
        running = await _moving(eight, user, fasts)

        async def refused() -> tuple[httpx.Response, float] | None:
            began = loop.time()
            answer = await user.call("GET", PREFERENCES)
            # 200 while one of the eight is made again, 503 where the machine is too busy
            return None if answer.status_code in (200, 503) else (answer, loop.time() - began)

        async def refused_after() -> float:
            refusals.append(await eventually(refused))
            return refusals[-1][1]

        async def served_after() -> float:
            began = loop.time()
            served.append((await other.call("GET", PREFERENCES)).status_code)
            return loop.time() - began

        is_refused_soon = await quick(refused_after, 2.9)
        is_served_soon = await quick(served_after, 1.0)
    moved = [(await each).status_code for each in running]

    for ninth, waited in refusals:
        assert (ninth.status_code, ninth.json()["type"]) == (429, "urn:fastbell:problem:too-many-concurrent-requests")
        assert ninth.headers["retry-after"] == "1"
        assert waited > 1.9
    assert is_refused_soon, refusals
    assert (set(served), is_served_soon) == ({200}, True)
    assert moved == [200] * 8


async def test_the_ninth_request_is_served_as_soon_as_one_of_the_eight_is_answered(eight: Stack) -> None:
    user = eight.user()
    fasts = [await user.start_fast(due_in=3600) for _ in range(8)]

    async with uncommitted(eight, HELD, ids=fasts[1:]):
        async with uncommitted(eight, HELD, ids=fasts[:1]):
            running = await _moving(eight, user, fasts)

            async def waiting() -> asyncio.Task[httpx.Response] | None:
                asked = asyncio.create_task(user.call("GET", PREFERENCES))
                return None if (await asyncio.wait([asked], timeout=0.3))[0] else asked

            ninth = await eventually(waiting)
        served = await ninth
    await asyncio.gather(*running)

    assert served.status_code == 200


async def test_streams_are_not_counted_and_refused_requests_leave_no_place_taken(eight: Stack) -> None:
    user = eight.user()
    async with AsyncExitStack() as streams:
        for _ in range(9):
            events = await streams.enter_async_context(streaming(user, uuid4()))
            await events.comment()
        for _ in range(9):
            assert (await user.call("GET", f"/v1/fasting-sessions/{uuid4()}")).status_code == 404
            assert (await user.call("PUT", PREFERENCES, {"no": "field"})).status_code == 422

        assert (await user.call("GET", PREFERENCES)).status_code == 200


async def test_a_service_runs_64_and_eight_for_each_user_it_acts_for() -> None:
    running = RunningRequests(8, 64, wait=0.01)
    backend, alice = _caller("backend", "service"), _caller("alice")

    for_alice = [await running.enter(backend, "alice") for _ in range(8)]
    with pytest.raises(LimitReached) as refused:
        await running.enter(backend, "alice")
    assert refused.value.code == "too-many-concurrent-requests"
    her_own = [await running.enter(alice) for _ in range(8)]  # the backend's are not hers
    for_others = [await running.enter(backend, f"user-{number}") for number in range(55)]
    await running.enter(backend)
    with pytest.raises(LimitReached):
        await running.enter(backend)
    with pytest.raises(LimitReached):
        await running.enter(backend, "bob")

    for permit in (*for_alice, *her_own):
        permit.release()
        permit.release()  # once is enough
    assert [type(await running.enter(backend, "bob")) for _ in range(8)] == [RequestPermit] * 8
    with pytest.raises(LimitReached):
        await running.enter(backend, "bob")
    assert len(for_others) == 55


async def test_no_more_than_some_wait_and_who_leaves_while_waiting_takes_no_place() -> None:
    running, alice = RunningRequests(1, None), _caller("alice")
    permit = await running.enter(alice)
    waiting = [asyncio.create_task(running.enter(alice)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)

    with pytest.raises(LimitReached):
        async with soon(1):
            await running.enter(alice)
    for task in waiting[:-1]:
        task.cancel()
    await asyncio.wait(waiting[:-1])
    permit.release()
    (await waiting[-1]).release()

    async with soon(1):
        (await running.enter(alice)).release()


async def test_zero_is_no_limit(detached: StackPlace) -> None:
    limits = {"MAX_CONCURRENT_REQUESTS_PER_CALLER": "0"}
    async with make_stack(detached, make_app(detached, **limits)) as stack:
        user = stack.user()
        fasts = [await user.start_fast(due_in=3600) for _ in range(9)]
        async with uncommitted(stack, HELD, ids=fasts):
            running = await _moving(stack, user, fasts)
            served = await user.call("GET", PREFERENCES)
        await asyncio.gather(*running)

    assert served.status_code == 200


async def _moving(stack: Stack, user: User, fasts: Sequence[UUID]) -> list[asyncio.Task[httpx.Response]]:
    """Move the goals of fasts that are held; gives the requests, once the first is under way.

    Each is made again where it waited as long for its row as a request may, which is little more than the ninth waits.
    """
    body = {"reminder_minutes": [2]}
    moving = [asyncio.create_task(user.done("PATCH", f"/v1/fasting-sessions/{each}", body)) for each in fasts]
    await eventually(stack.someone_waits_for_a_lock)
    return moving


def _caller(user_id: str, *scopes: str) -> Caller:
    return Caller(user_id, frozenset(scopes), NEVER)
