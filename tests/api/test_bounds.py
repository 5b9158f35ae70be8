"""No client holds the process up: not by slowness, not by size, not by number."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from uuid import UUID, uuid4

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from api.bounds import LARGEST_BODY, MAX_HEADERS, MAX_HELD, RequestBounds
from api.http.connection import connection_of
from api.http.problems import Detail
from tests.busy import in_time, soon
from tests.stack import Stack, StackPlace, User, eventually, iphone, make_app, make_stack, uncommitted
from tests.streaming import Events, streaming

PREFERENCES = "/v1/notification-preferences"
BUSY = {
    "type": "urn:fastbell:problem:unavailable",
    "title": "Temporarily unavailable",
    "status": 503,
    "detail": Detail.TOO_MANY_IN_PROCESS,
}
LATE = BUSY | {"detail": "This took too long. Try again: repeats are harmless."}


@asynccontextmanager
async def bounded(
    place: StackPlace, *, lasting: int = 100, read_within: float = 60, **settings: str
) -> AsyncIterator[Stack]:
    """Serve an API with narrow bounds."""
    app = make_app(place, **settings)
    async with make_stack(place, app, http=connection_of(lasting=lasting, read_within=read_within)) as stack:
        yield stack


@asynccontextmanager
async def connected(stack: Stack) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection."""
    reader, writer = await asyncio.open_connection(stack.http.base_url.host, stack.http.base_url.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def drip(stack: Stack, first: bytes, drop: bytes) -> tuple[float, int]:
    """Send drop after drop until cut off; gives how long that took, and how many answers came before."""
    began, received = asyncio.get_running_loop().time(), bytearray()

    async def read(reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionResetError):
            while piece := await reader.read(4096):
                received.extend(piece)

    async with soon(10), connected(stack) as (reader, writer):
        writer.write(first)
        reading = asyncio.create_task(read(reader))
        while not reading.done():
            writer.write(drop)
            await asyncio.sleep(0.05)
        await reading
    return asyncio.get_running_loop().time() - began, received.count(b"HTTP/1.1 ")


def head(user: User, more: str) -> bytes:
    """Begin a request."""
    return (
        f"PUT {path_of(user)} HTTP/1.1\r\nHost: a\r\nAuthorization: {user.headers['Authorization']}\r\n{more}".encode()
    )


def path_of(user: User | None) -> str:
    """Give where to; a backend acts for somebody."""
    return PREFERENCES.replace("/v1", "/v1/users/anna") if user and user.user_id == "backend" else PREFERENCES


async def test_a_client_that_takes_too_long_over_a_request_is_cut_off(detached: StackPlace) -> None:
    async with bounded(detached, read_within=0.5) as stack:
        user = stack.user()
        body = "Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
        cut = await asyncio.gather(
            drip(stack, b"", b""),
            drip(stack, b"GET /livez HTTP/1.1\r\n", b"X-More: more\r\n"),
            drip(stack, head(user, body), b" "),
            drip(stack, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\nGET /livez HTTP/1.1\r\n", b"X-More: more\r\n"),
        )
        served = await user.call("GET", PREFERENCES)

    assert all(after > 0.4 and in_time(after, 3) for after, _ in cut), cut
    assert [answers for _, answers in cut] == [0, 0, 0, 1]
    assert served.status_code == 200


async def test_an_open_stream_and_an_idle_connection_outlast_the_time_for_a_request(
    api: Stack, detached: StackPlace
) -> None:
    user, phone = api.user(), iphone()
    await user.register(phone)
    async with bounded(detached, read_within=0.5, REQUEST_TIMEOUT="1.5", MOST_REQUESTS="1") as stack:
        at = str(stack.http.base_url)

        async def is_served() -> bool:  # the first request also opens the database's connections, which takes its time
            return (await stack.http.get(PREFERENCES, headers=user.headers)).status_code == 200

        await eventually(is_served)
        async with AsyncExitStack() as exits:

            async def opened() -> Events | None:  # None where it took longer than a request may
                with suppress(AssertionError):
                    return await exits.enter_async_context(streaming(user, phone.installation_id, at=at))
                return None

            events: Events = await eventually(opened)
            await events.comment()
            async with connected(stack) as (reader, writer):
                for _ in range(3):
                    writer.write(b"GET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert b" 404 Not Found" in await reader.readuntil(b"}")
                    await asyncio.sleep(0.6)
            await events.comment()


async def test_a_request_that_takes_too_long_is_given_up_and_may_be_repeated(api: Stack, detached: StackPlace) -> None:
    user = api.user()
    session_id = await user.start_fast(due_in=3600)
    path = _end_of(session_id)
    async with bounded(detached, REQUEST_TIMEOUT="0.3") as stack:
        async with uncommitted(api, "SELECT 1 FROM fasting_sessions WHERE id = :id FOR UPDATE", id=session_id):
            late = await stack.http.post(path, headers=user.headers)
        again = await user.call("POST", path)

    assert (late.status_code, late.json(), late.headers["retry-after"]) == (503, LATE, "1")
    assert late.headers["x-content-type-options"] == "nosniff"
    assert again.status_code == 200


async def test_an_answer_that_is_given_at_the_very_last_moment_is_the_answer() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    bounds = RequestBounds(app, timeout=0.05, most=1)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(bounds), base_url="http://a") as http:
        answers = [await http.get("/v1/anything") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [204, 204]


async def test_more_requests_under_way_than_allowed_are_turned_away_but_for_the_signs_of_life(
    detached: StackPlace,
) -> None:
    async with bounded(detached, MOST_REQUESTS="2") as stack:
        user = stack.user()
        session_ids = [await user.start_fast(due_in=3600) for _ in range(2)]
        hold = "SELECT 1 FROM fasting_sessions WHERE id = ANY(:ids) FOR UPDATE"
        async with uncommitted(stack, hold, ids=session_ids):
            ending = [asyncio.create_task(user.done("POST", _end_of(each))) for each in session_ids]

            async def turned_away() -> httpx.Response | None:  # once both are under way
                answer = await user.call("GET", PREFERENCES)
                return None if answer.status_code == 200 else answer

            third: httpx.Response = await eventually(turned_away)
            alive, ready = await stack.http.get("/livez"), await stack.http.get("/readyz")
        ended = [(await each).status_code for each in ending]
        after = await user.call("GET", PREFERENCES)

    assert (third.status_code, third.json(), third.headers["retry-after"]) == (503, BUSY, "1")
    assert (alive.status_code, ready.status_code, ended, after.status_code) == (204, 200, [200, 200], 200)


@pytest.mark.parametrize(
    "begun",
    [
        "PUT {path} HTTP/1.1\r\n{token}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        "PUT {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        "PUT {path} HTTP/1.1\r\n{token}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n",
        "GET {path} HTTP/1.1\r\n{token}Content-Length: 100\r\n\r\n",
        "GET {path} HTTP/1.1\r\n{token}X-More: ",
        "POST /console/sign-in HTTP/1.1\r\n{form}Content-Length: 100\r\n\r\ncode=",
        "POST /preferences/ HTTP/1.1\r\n{form}Content-Length: 100\r\n\r\nreminders=",
    ],
    ids=["body", "nobody's body", "chunks", "body of a GET", "head", "console's form", "preference page's form"],
)
async def test_requests_that_are_slow_to_come_take_no_place_of_others(detached: StackPlace, begun: str) -> None:
    async with bounded(detached, MOST_REQUESTS="2") as stack, AsyncExitStack() as slow:
        user, other = stack.user(), stack.user()
        part = begun.format(
            path=PREFERENCES,
            token=f"Authorization: {user.headers['Authorization']}\r\n",
            form="Content-Type: application/x-www-form-urlencoded\r\n",
        ).replace("\r\n", "\r\nHost: a\r\n", 1)
        for _ in range(4):
            _, writer = await slow.enter_async_context(connected(stack))
            writer.write(part.encode())
            await writer.drain()
        await asyncio.sleep(0.2)  # all of them are being read

        async with soon(5):
            answers = [
                await other.call("GET", PREFERENCES),
                await other.call("PUT", PREFERENCES, {}),
                await stack.http.get("/readyz"),
            ]

    assert [answer.status_code for answer in answers] == [200, 200, 200], answers[0].text


async def begun(stack: Stack, exits: AsyncExitStack, user: User | None, size: int) -> asyncio.StreamReader:
    """Send a request but for the last byte of its body; gives where its answer comes."""
    reader, writer = await exits.enter_async_context(connected(stack))
    token = f"Authorization: {user.headers['Authorization']}\r\n" if user is not None else ""
    length = f"Content-Type: application/json\r\nContent-Length: {size}\r\n"
    writer.write(f"PUT {path_of(user)} HTTP/1.1\r\nHost: a\r\n{token}{length}\r\n".encode())
    writer.write(b"{}".ljust(size - 1))
    await writer.drain()
    return reader


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, str]]:
    """Read an answer: its status, its headers, its JSON."""
    async with soon(5):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for line in lines[1:-2] for name, value in [line.split(": ", 1)]}
        return int(lines[0].split()[1]), headers, json.loads(await reader.readexactly(int(headers["content-length"])))


async def refused(readers: list[asyncio.StreamReader], count: int) -> list[tuple[int, dict[str, str], dict[str, str]]]:
    """Wait until so many of these have an answer, at least, and read those."""

    async def answered() -> list[asyncio.StreamReader]:
        found = [each for each in readers if each._buffer]  # type: ignore[attr-defined] # it has no other sign
        return found if len(found) >= count else []

    return [await answer_of(each) for each in await eventually(answered)]


NEARLY = LARGEST_BODY - 100


async def test_a_caller_who_leaves_many_bodies_half_sent_is_refused_more_and_nobody_else(detached: StackPlace) -> None:
    async with bounded(detached) as stack, AsyncExitStack() as exits:
        user, other = stack.user(), stack.user()
        slow = [await begun(stack, exits, user, NEARLY) for _ in range(12)]

        found = await refused(slow, 4)
        mine = await user.call("GET", PREFERENCES), await user.call("PUT", PREFERENCES, {})
        others = await answer_of_whole(stack, exits, other, NEARLY)

    assert {(status, headers["retry-after"], body["type"]) for status, headers, body in found} == {
        (429, "1", "urn:fastbell:problem:too-many-concurrent-requests")
    }
    assert [answer.status_code for answer in mine] == [200, 200]  # what comes at once takes no room
    assert others == 200


@pytest.mark.parametrize("token", [None, "not.a.token"])
async def test_who_sends_no_valid_token_shares_a_small_allowance(detached: StackPlace, token: str | None) -> None:
    async with bounded(detached) as stack, AsyncExitStack() as exits:
        nobody = None if token is None else replace(stack.user(), headers={"Authorization": f"Bearer {token}"})
        slow = [await begun(stack, exits, nobody, NEARLY) for _ in range(20)]

        found = await refused(slow, 4)
        others = await answer_of_whole(stack, exits, stack.user(), NEARLY)
        ready = await stack.http.get("/readyz")

    assert {(status, headers["retry-after"], body["type"]) for status, headers, body in found} == {
        (503, "1", "urn:fastbell:problem:unavailable")
    }
    assert (others, ready.status_code) == (200, 200)


async def test_all_bodies_on_their_way_hold_so_many_bytes_and_no_more_and_give_them_back(detached: StackPlace) -> None:
    fits = MAX_HELD // (NEARLY - 1)
    async with bounded(detached, lasting=1000) as stack:
        async with AsyncExitStack() as exits:
            slow = [
                await begun(stack, exits, user, NEARLY)
                for user in (stack.user() for _ in range(fits // 8 + 2))
                for _ in range(8)
            ]

            found = await refused(slow, len(slow) - fits)
            user, phone = stack.user(), iphone()
            at_once = await user.call("PUT", PREFERENCES, {}), await stack.http.get("/readyz")
            await user.register(phone)
            async with streaming(user, phone.installation_id) as events:
                await events.comment()
        async with AsyncExitStack() as exits:
            await eventually(lambda: _served(stack, exits))

    assert {(status, headers["retry-after"]) for status, headers, _ in found} == {(503, "1")}
    assert [answer.status_code for answer in at_once] == [200, 200]


async def test_a_service_may_have_more_bodies_under_way_than_a_user(detached: StackPlace) -> None:
    async with bounded(detached) as stack, AsyncExitStack() as exits:
        service = stack.user("backend", "service")
        for _ in range(60):
            await begun(stack, exits, service, NEARLY)

        assert await answer_of_whole(stack, exits, service, NEARLY) == 200


async def test_who_sends_on_before_the_answer_is_cut_off(api: Stack) -> None:
    user, phone = api.user(), iphone()
    await user.register(phone)
    async with connected(api) as (reader, writer), soon(5):
        path = f"/v1/stream?installation_id={phone.installation_id}"
        token = f"Authorization: {user.headers['Authorization']}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n{token}\r\n\r\n".encode())
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")

        writer.write(b"x" * 60_000)

        with suppress(ConnectionResetError):
            await reader.read()  # to its end, which comes while the stream would last


async def answer_of_whole(stack: Stack, exits: AsyncExitStack, user: User, size: int) -> int:
    """Send a request in two pieces; gives its status."""
    reader, writer = await exits.enter_async_context(connected(stack))
    length = f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    writer.write(head(user, length) + b"{}".ljust(size - 1))
    await writer.drain()
    await asyncio.sleep(0.05)  # so that the last byte comes alone, as a rule; whole at once would do, too
    writer.write(b" ")
    return (await answer_of(reader))[0]


async def _served(stack: Stack, exits: AsyncExitStack) -> bool:
    return await answer_of_whole(stack, exits, stack.user(), NEARLY) == 200


async def test_more_connections_than_allowed_are_closed_at_once(detached: StackPlace) -> None:
    async with bounded(detached, lasting=-397) as stack:  # and 400 that do not last
        async with connected(stack) as (_, one), connected(stack) as (_, two), connected(stack) as (reader, three):
            for writer in (one, two, three):
                writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 204 " in await reader.readuntil(b"\r\n\r\n")
            async with connected(stack) as (turned_away, _):
                assert await turned_away.read() == b""
        await eventually(lambda: _alive(stack))


@pytest.mark.parametrize("headers", [{f"X-{n}": "" for n in range(MAX_HEADERS)}, {"X-Long": "x" * 16_100}], ids=len)
async def test_a_head_with_too_many_headers_or_bytes_is_refused(alice: User, headers: dict[str, str]) -> None:
    answer = await alice.stack.http.get(PREFERENCES, headers=alice.headers | headers)

    assert (answer.status_code, answer.json()["type"]) == (431, "urn:fastbell:problem:head-too-large")


@pytest.mark.parametrize(
    "sent", [b"GET /livez HTTP/1.1\r\nX: " + b"x" * 20_000, b"\x16\x03\x01\x02\x00\x01\r\n\r\n"], ids=len
)
async def test_a_head_without_end_and_what_is_no_http_are_refused_as_problems(api: Stack, sent: bytes) -> None:
    async with connected(api) as (reader, writer):
        writer.write(sent)
        start, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert start.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in start.lower()
    assert json.loads(body)["type"] == "urn:fastbell:problem:not-http"


def _end_of(session_id: UUID) -> str:
    return f"/v1/fasting-sessions/{session_id}/end"


async def _alive(stack: Stack) -> bool:
    try:
        return (await stack.http.get("/livez", params={"again": str(uuid4())})).status_code == 204
    except httpx.TransportError:
        return False
