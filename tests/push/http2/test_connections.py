"""The HTTP/2 client against a server that misbehaves on purpose."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import pairwise

import pytest
import structlog
from h2.errors import ErrorCodes
from hpack import HeaderTuple

from push.http2.connection import ANSWERS_WITHIN, QUIET_AFTER, KeepAlive
from push.http2.pool import DEFAULT_TIMEOUTS, Pool, Timeouts
from push.http2.streams import Response
from push.sender import Delivery, NoRoom, Unavailable
from tests.busy import in_time, soon
from tests.push.conftest import PATIENT, SHORT, made_of
from tests.push.peer import Peer, PeerConnection, Request, listening

BODY = b'{"aps":{}}'
SHORTEST_REST = 0.1  # seconds, of the first after a failure
BRISK = Timeouts(lease=timedelta(seconds=0.25))


class NotNeeded(Exception):
    """Raised by one who no longer needs the stream."""


def headers(path: str = "/") -> list[HeaderTuple]:
    fields = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "peer"))
    return [HeaderTuple(name.encode(), value.encode()) for name, value in fields]


async def send(pool: Pool, path: str = "/", body: bytes = BODY, *, user: int = 0) -> Response:
    async with pool.lease(user) as lease:
        return await lease.call(headers(path), body)


async def outcome(call: Awaitable[Response]) -> Response | BaseException:
    [outcome] = await asyncio.gather(call, return_exceptions=True)
    return outcome


async def send_all(pool: Pool, count: int) -> list[Response | BaseException]:
    return await asyncio.gather(*(send(pool, f"/{number}") for number in range(count)), return_exceptions=True)


def deliveries(outcomes: list[Response | BaseException]) -> list[Delivery | int]:
    return [outcome.delivery if isinstance(outcome, Unavailable) else _status(outcome) for outcome in outcomes]


def _status(outcome: Response | BaseException) -> int:
    assert isinstance(outcome, Response), repr(outcome)
    return outcome.status


def silent(_: Request) -> None:
    return None


def answer_late(request: Request) -> None:
    _after(0.1, request.answer)


def _after(seconds: float, act: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, act)


async def test_answers_find_their_calls_by_stream_in_any_order(peer: Peer, pool: Pool) -> None:
    waiting: list[Request] = []

    def answer_backwards(request: Request) -> None:
        waiting.append(request)
        if len(waiting) == 10:
            for held in reversed(waiting):
                held.answer(200, held.headers[":path"].encode())

    await send(pool)
    peer.script = answer_backwards

    outcomes = await send_all(pool, 10)

    assert [outcome.body for outcome in outcomes if isinstance(outcome, Response)] == [b"/%d" % n for n in range(10)]


async def test_three_thousand_error_answers_on_one_connection_are_all_heard(peer: Peer) -> None:
    pool = Pool(peer.url, ca_file=None, connections=8, timeouts=DEFAULT_TIMEOUTS)
    peer.script = lambda request: request.answer(400, b'{"reason":"BadDeviceToken"}' + b" " * 40)

    outcomes = [outcome for _ in range(30) for outcome in await send_all(pool, 100)]
    await pool.close()

    assert deliveries(outcomes) == [400] * 3000
    assert len(peer.connections) == 1


async def test_goaway_fails_the_streams_above_and_waits_for_those_below(peer: Peer, pool: Pool) -> None:
    await send(pool)  # stream 1
    peer.script = silent
    sends = asyncio.create_task(send_all(pool, 6))  # streams 3 to 13
    requests = (await peer.received(7))[1:]

    peer.connections[0].go_away(last_stream_id=7)
    await asyncio.sleep(0.05)
    for request in requests[:3]:
        request.answer()
    outcomes = await sends

    assert deliveries(outcomes) == [200] * 3 + [Delivery.NOT_PROCESSED] * 3
    peer.script = Request.answer
    assert (await send(pool)).status == 200
    assert len(peer.connections) == 2
    assert len(peer.requests) == 8, "nothing was sent twice"


async def test_goaway_and_an_answer_in_one_packet_are_both_read(peer: Peer, pool: Pool) -> None:
    def leave(request: Request) -> None:
        request.connection.go_away(last_stream_id=request.stream_id)
        request.answer(200, b"done")

    peer.script = leave

    assert (await send(pool)).body == b"done"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b'{"reason":"BadDeviceToken"}', "BadDeviceToken"),
        (b"bad field :path /3/device/abab", None),
        (b'{"reason":"/3/device/abab"}', None),
        (b"", None),
    ],
)
async def test_of_a_goaway_only_apples_word_is_reported_since_others_quote_what_we_sent(
    peer: Peer, pool: Pool, said: bytes, told: str | None
) -> None:
    def leave(request: Request) -> None:
        request.connection.go_away(request.stream_id, said)
        request.answer()

    peer.script = leave

    with structlog.testing.capture_logs() as logs:
        await send(pool)

    assert [entry["reason"] for entry in logs if entry["event"] == "connection got GOAWAY"] == [told]
    assert "abab" not in str(logs)


async def test_a_refused_stream_was_never_processed_and_any_other_reset_is_unknown(peer: Peer, pool: Pool) -> None:
    peer.script = lambda request: request.reset(ErrorCodes.REFUSED_STREAM)
    refused = await send_all(pool, 1)
    peer.script = lambda request: request.reset(ErrorCodes.INTERNAL_ERROR)
    broken = await send_all(pool, 1)

    assert deliveries(refused + broken) == [Delivery.NOT_PROCESSED, Delivery.UNKNOWN]
    assert [type(outcome) for outcome in refused + broken] == [NoRoom, Unavailable]


async def test_the_stream_limit_is_obeyed_as_it_rises_and_falls() -> None:
    in_flight: dict[PeerConnection, int] = {}
    seen: list[tuple[int, int]] = []
    allowed = [1]

    def answer(request: Request) -> None:
        allowed[0] = 1 if len(seen) % 50 == 49 else 1000
        request.connection.limit(allowed[0])
        request.answer()
        in_flight[request.connection] -= 1

    def hold(request: Request) -> None:
        in_flight[request.connection] = in_flight.get(request.connection, 0) + 1
        seen.append((in_flight[request.connection], allowed[0]))
        asyncio.get_running_loop().call_later(0.002, answer, request)

    async with listening(Peer(limit=1)) as peer:
        peer.script = hold
        pool = Pool(peer.url, ca_file=None, connections=8, timeouts=DEFAULT_TIMEOUTS)
        outcomes = await send_all(pool, 300)
        await pool.close()

    assert deliveries(outcomes) == [200] * 300
    assert seen[0] == (1, 1)
    assert seen[1][1] == 1000, "the second call waited until the first had raised the limit"
    assert max(count for count, _ in seen) <= 100
    assert len(peer.connections) <= 4


async def test_nobody_opens_a_second_connection_while_the_first_is_at_one_stream() -> None:
    async with listening(Peer(limit=1)) as peer:
        peer.script = silent
        pool = Pool(peer.url, ca_file=None, connections=8, timeouts=PATIENT)
        async with AsyncExitStack() as exits:
            await exits.enter_async_context(pool.lease())
            outcomes = await send_all(pool, 20)
        await pool.close()

    assert {type(outcome) for outcome in outcomes} == {NoRoom}
    assert len(peer.connections) == 1


async def test_a_full_connection_is_joined_by_another(peer: Peer, pool: Pool) -> None:
    async with AsyncExitStack() as exits:
        for _ in range(250):
            await exits.enter_async_context(pool.lease())

    assert len(peer.connections) == 3


async def test_a_connection_whose_window_is_spoken_for_is_joined_by_another(peer: Peer) -> None:
    pool = Pool(peer.url, ca_file=None, connections=8, timeouts=DEFAULT_TIMEOUTS)
    await send(pool, body=b"x" * 4000)
    async with AsyncExitStack() as exits:
        leases = [await exits.enter_async_context(pool.lease()) for _ in range(30)]
        answers = await asyncio.gather(*(lease.call(headers(), b"x" * 4000) for lease in leases))
    await pool.close()

    assert {answer.status for answer in answers} == {200}, "no call had to wait for the window that it was promised"
    assert len(peer.connections) == 2


async def test_an_unused_place_is_given_back() -> None:
    async with listening(Peer(limit=1)) as peer:
        pool = Pool(peer.url, ca_file=None, connections=1, timeouts=DEFAULT_TIMEOUTS)
        for _ in range(5):
            async with pool.lease():
                pass
        assert (await send(pool)).status == 200
        await pool.close()


async def test_a_silent_stream_is_unknown_in_time_while_the_others_go_on(peer: Peer, pool: Pool) -> None:
    peer.script = lambda request: None if request.headers[":path"] == "/7" else request.answer()
    await send(pool)
    started = time.monotonic()
    first = asyncio.create_task(send(pool, "/7"))
    others = []
    while not first.done():
        others += await send_all(pool, 5)
        await asyncio.sleep(0.02)

    with pytest.raises(Unavailable) as trouble:
        await first

    assert (trouble.value.reason, trouble.value.delivery) == ("answer_timeout", Delivery.UNKNOWN)
    took = time.monotonic() - started
    assert took > 0.49
    assert in_time(took, 1.5)
    assert set(deliveries(others)) == {200}
    assert len(peer.connections) == 1, "a connection that answers others is kept"


async def test_a_connection_that_answers_nobody_is_replaced_though_it_answers_pings(peer: Peer, pool: Pool) -> None:
    await send(pool)
    peer.script = silent
    assert deliveries(await send_all(pool, 3)) == [Delivery.UNKNOWN] * 3

    peer.script = Request.answer
    assert (await send(pool)).status == 200
    assert len(peer.connections) == 2


async def test_a_frozen_connection_gets_no_more_calls_and_is_found_out_by_a_ping(peer: Peer) -> None:
    pool = Pool(peer.url, ca_file=None, connections=8, timeouts=DEFAULT_TIMEOUTS)
    await send(pool)
    peer.connections[0].is_deaf = True
    frozen = [asyncio.create_task(send(pool)) for _ in range(2)]
    await _silent(pool)

    assert (await send(pool)).status == 200, "over another connection, at once"
    assert not any(call.done() for call in frozen)

    outcomes = await asyncio.gather(*frozen, return_exceptions=True)
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Unavailable)] == ["peer_is_dead"] * 2
    assert deliveries(outcomes) == [Delivery.UNKNOWN] * 2
    await pool.close()


async def test_a_slow_peer_is_asked_once_and_keeps_its_calls(peer: Peer) -> None:
    pool = Pool(peer.url, ca_file=None, connections=8, timeouts=DEFAULT_TIMEOUTS)
    peer.script = lambda request: _after(2 * ANSWERS_WITHIN, request.answer)

    assert deliveries(await send_all(pool, 3)) == [200] * 3

    assert peer.connections[0].pings == 1
    assert len(peer.connections) == 1
    await pool.close()


async def test_a_process_that_stood_still_reads_what_was_said_before_it_calls_a_peer_dead() -> None:
    died: list[bool] = []
    keep_alive = KeepAlive(within=0.05, send_ping=lambda: None, on_death=lambda: died.append(True))
    keep_alive.ask()
    time.sleep(0.3)  # noqa: ASYNC251 -- it has to stand still
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    keep_alive.note_reply()
    await asyncio.sleep(0.1)  # longer than an answer may take

    assert not died
    assert not keep_alive.is_awaited
    keep_alive.stop()


async def test_a_process_that_stood_still_reads_the_answers_that_came_before_it_gives_a_call_up(
    peer: Peer, pool: Pool
) -> None:
    def stand_still(request: Request) -> None:
        request.answer()
        time.sleep(SHORT.answer.total_seconds() + 0.3)

    await send(pool)
    peer.script = stand_still

    assert (await send(pool)).status == 200
    assert len(peer.connections) == 1


@pytest.mark.parametrize(("is_deaf", "lines"), [(False, 1), (True, 2)])
async def test_a_connection_that_was_quiet_for_long_gives_a_sign_of_life_before_it_gets_a_call(
    peer: Peer, is_deaf: bool, lines: int
) -> None:
    pool = Pool(peer.url, ca_file=None, connections=8, timeouts=DEFAULT_TIMEOUTS)
    await send(pool)
    peer.connections[0].is_deaf = is_deaf
    pool._connections[0]._keep_alive.replied_at -= QUIET_AFTER + 1

    assert (await send(pool)).status == 200

    assert len(peer.connections) == lines
    assert len(peer.requests) == 2
    await pool.close()


async def test_an_idle_peer_is_pinged_once_an_hour_and_a_dead_one_dropped() -> None:
    pings, deaths = [], asyncio.Event()
    keep_alive = KeepAlive(within=0.01, send_ping=lambda: pings.append(True), on_death=deaths.set)
    hourly = keep_alive._idle
    assert hourly.when() - asyncio.get_running_loop().time() == pytest.approx(3600, abs=1)

    keep_alive._check_idle()
    assert not pings  # it was heard just now
    keep_alive.replied_at -= 3600
    keep_alive._check_idle()

    async with soon(5):
        await deaths.wait()
    assert len(pings) == 1
    hourly.cancel()
    keep_alive.stop()


@pytest.mark.parametrize(("status", "delivery"), [(200, 200), (503, Delivery.UNKNOWN)])
async def test_a_reset_behind_the_status_line_leaves_only_a_200_certain(
    peer: Peer, pool: Pool, status: int, delivery: Delivery | int
) -> None:
    def cut(request: Request) -> None:
        request.begin_answer(status)
        asyncio.get_running_loop().call_later(0.02, request.connection.reset)

    peer.script = cut

    assert deliveries(await send_all(pool, 1)) == [delivery]


async def test_a_lost_connection_leaves_its_calls_unknown(peer: Peer, pool: Pool) -> None:
    await send(pool)
    peer.script = lambda request: request.connection.reset() if request.headers[":path"] == "/4" else None

    outcomes = await send_all(pool, 5)

    assert deliveries(outcomes) == [Delivery.UNKNOWN] * 5


@pytest.mark.parametrize(
    "pieces", [(), (b"",), (b'{"rea', b"", b'son":"x"}'), (b"<html>" * 4000,)], ids=["none", "empty", "split", "html"]
)
async def test_bodies_of_any_shape_are_read_whole(peer: Peer, pool: Pool, pieces: tuple[bytes, ...]) -> None:
    peer.script = lambda request: request.answer(503, *_in_frames(pieces))

    outcome = await send(pool)

    assert (outcome.status, outcome.body) == (503, b"".join(pieces))


def _in_frames(pieces: tuple[bytes, ...]) -> list[bytes]:
    return [piece[at : at + 16384] for piece in pieces for at in range(0, max(len(piece), 1), 16384)]


async def test_a_cancelled_caller_breaks_nobody_else(peer: Peer, pool: Pool) -> None:
    await send(pool)
    peer.script = silent
    sends = [asyncio.create_task(send(pool, f"/{number}")) for number in range(10)]
    requests = (await peer.received(11))[1:]

    for task in sends[::2]:
        task.cancel()
    await asyncio.sleep(0)
    for request in requests:
        request.answer()
    outcomes = await asyncio.gather(*sends, return_exceptions=True)

    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [True, False] * 5
    assert deliveries(outcomes[1::2]) == [200] * 5


async def test_a_cancelled_waiter_takes_no_place_with_it() -> None:
    async with listening(Peer(limit=1)) as peer:
        pool = Pool(peer.url, ca_file=None, connections=1, timeouts=DEFAULT_TIMEOUTS)
        async with pool.lease():
            waiters = [asyncio.create_task(send(pool)) for _ in range(3)]
            await asyncio.sleep(0.01)
            waiters[0].cancel()
        waiters[1].cancel()  # in the very turn in which the place was handed to it
        assert (await waiters[2]).status == 200
        await asyncio.gather(*waiters, return_exceptions=True)
        await pool.close()


@pytest.mark.parametrize("ends", ["reset", "freeze", "goaway"])
async def test_a_place_that_was_leased_ahead_is_exchanged_if_its_connection_ends_meanwhile(
    peer: Peer, pool: Pool, ends: str
) -> None:
    await send(pool)
    [connection] = peer.connections
    calls = []

    async def until() -> None:
        if ends == "freeze":
            connection.is_deaf = True
            calls.append(asyncio.create_task(outcome(send(pool, user=1))))
            await _silent(pool)
        else:
            connection.reset() if ends == "reset" else connection.go_away(1)
            async with soon(5):
                while any(each.usable for each in pool._connections):
                    await asyncio.sleep(0.01)

    async with pool.lease(2, until) as lease:
        assert (await lease.call(headers(), BODY)).status == 200

    assert peer.requests[-1].connection is not connection
    await asyncio.gather(*calls)


async def test_a_place_that_was_leased_ahead_goes_back_if_it_is_not_needed_after_all() -> None:
    async def until() -> None:
        raise NotNeeded

    async with listening(Peer(limit=1)) as peer:
        pool = Pool(peer.url, ca_file=None, connections=1, timeouts=DEFAULT_TIMEOUTS)
        for _ in range(3):
            with pytest.raises(NotNeeded):
                async with pool.lease(1, until):
                    pass
        assert (await send(pool)).status == 200
        await pool.close()


async def test_a_body_trickles_through_a_small_stream_window() -> None:
    async with listening(Peer(window=10)) as peer:
        pool = Pool(peer.url, ca_file=None, connections=1, timeouts=DEFAULT_TIMEOUTS)

        assert (await send(pool, body=b"x" * 95)).status == 200

        assert peer.requests[0].body == b"x" * 95
        await pool.close()


async def test_an_answer_before_the_body_was_sent_frees_its_stream() -> None:
    async with listening(Peer(window=10, limit=2)) as peer:
        peer.gives_credit = False
        peer.is_hasty = True
        pool = Pool(peer.url, ca_file=None, connections=1, timeouts=DEFAULT_TIMEOUTS)

        assert [(await send(pool, body=b"x" * 50)).status for _ in range(5)] == [413] * 5

        assert len(peer.connections) == 1
        await pool.close()


async def test_no_call_starts_without_window_for_its_body(peer: Peer, pool: Pool) -> None:
    peer.gives_credit = False
    large = b"x" * 40_000
    await send(pool, body=large)

    with pytest.raises(Unavailable) as trouble:
        await send(pool, body=large)
    waiting = asyncio.create_task(send(pool, body=large))
    while not pool._connections[0]._capacity._starters:  # it waits, for a quarter of a second
        await asyncio.sleep(0)
    peer.connections[0].credit(40_000)

    assert (type(trouble.value), trouble.value.delivery) == (NoRoom, Delivery.NOT_SENT)
    assert (await waiting).status == 200
    assert len(peer.requests) == 2, "nothing of the call that found no window reached the peer"


async def test_a_place_on_a_connection_that_is_gone_makes_no_call(peer: Peer, pool: Pool) -> None:
    await send(pool)
    async with pool.lease() as lease:
        peer.connections[0].reset()
        await asyncio.sleep(0.05)
        with pytest.raises(Unavailable) as trouble:
            await lease.call(headers(), BODY)

    assert made_of(trouble.value) == (Unavailable, "connection_lost", Delivery.NOT_SENT, None)
    assert len(peer.requests) == 1


async def test_a_request_that_never_left_whole_was_never_processed() -> None:
    async with listening(Peer(window=10)) as peer:
        peer.gives_credit = False
        pool = Pool(peer.url, ca_file=None, connections=1, timeouts=SHORT)

        assert deliveries(await send_all(pool, 1)) == [200]
        with pytest.raises(Unavailable) as trouble:
            await send(pool, body=b"x" * 50)

        assert trouble.value.delivery is Delivery.NOT_PROCESSED
        await pool.close()


async def test_a_refused_connection_is_reported_at_once() -> None:
    async with listening(Peer()) as gone:
        url = gone.url
    pool = Pool(url, ca_file=None, connections=8, timeouts=DEFAULT_TIMEOUTS)
    started = time.monotonic()

    outcomes = await send_all(pool, 500)

    took = time.monotonic() - started
    assert deliveries(outcomes) == [Delivery.NOT_PROCESSED] * 500
    assert in_time(took, 1.0), "nobody waited"
    told = {(type(outcome), str(outcome)) for outcome in outcomes + await send_all(pool, 5)}
    assert told == {(Unavailable, "connect_failed"), (NoRoom, "resting_after_failed_connection")}
    await pool.close()


async def test_a_connection_that_failed_is_tried_again_only_after_a_rest(peer: Peer, pool: Pool) -> None:
    peer.slams = True

    async with soon(5):
        while len(peer.opened_at) < 3:
            await send_all(pool, 20)
            await asyncio.sleep(0.01)

    rests = [later - earlier for earlier, later in pairwise(peer.opened_at)]
    assert min(rests) >= SHORTEST_REST


@pytest.mark.parametrize(("users", "rests"), [(2, False), (3, True)])
async def test_connections_lost_before_their_first_answer_rest_once_three_users_lost_them(
    peer: Peer, pool: Pool, users: int, rests: bool
) -> None:
    peer.script = lambda request: request.connection.reset()
    lost = [await outcome(send(pool, user=number % users)) for number in range(3)]

    last = made_of(await outcome(send(pool, user=0)))[1]

    assert [made_of(each)[1] for each in lost] == ["connection_lost"] * 3
    assert last == ("resting_after_failed_connection" if rests else "connection_lost")


async def test_an_answer_ends_what_lost_connections_said(peer: Peer, pool: Pool) -> None:
    peer.script = lambda request: (
        request.answer if request.headers[":path"] == "/good" else request.connection.reset
    )()

    for user in range(1, 9):
        assert made_of(await outcome(send(pool, user=user)))[1] == "connection_lost"
        assert (await send(pool, "/good", user=0)).status == 200


async def test_a_user_whose_calls_end_connections_is_left_alone_on_them(peer: Peer) -> None:
    """The others lose a call to that user once, if at all."""
    pool = Pool(peer.url, ca_file=None, connections=8, timeouts=PATIENT)
    await send(pool)
    bad, others = 7, range(10, 15)
    waiting: list[Request] = []

    def hold_or_reset(request: Request) -> None:
        waiting.append(request) if request.headers[":path"] != "/bad" else request.connection.reset()

    def all_or_nothing(request: Request) -> None:
        if request.headers[":path"] == "/bad":
            request.connection.reset()
        else:
            _after(0.05, lambda: None if request.connection.transport.is_closing() else request.answer())

    peer.script = hold_or_reset
    first = [asyncio.create_task(outcome(send(pool, "/", user=user))) for user in others]
    while len(waiting) < len(others):
        await asyncio.sleep(0)
    assert made_of(await outcome(send(pool, "/bad", user=bad)))[1] == "connection_lost"
    assert {made_of(each)[1] for each in await asyncio.gather(*first)} == {"connection_lost"}

    peer.script = all_or_nothing
    for _ in range(3):
        calls = [send(pool, "/bad", user=bad)] + [send(pool, user=user) for user in others]
        ended, *answered = await asyncio.gather(*(outcome(call) for call in calls))
        assert made_of(ended)[1] == "connection_lost"
        assert deliveries(answered) == [200] * len(others)
    assert len(pool._connections) < 8
    await pool.close()


async def test_a_host_that_is_no_name_is_a_failed_connection_each_time() -> None:
    pool = Pool("http://a..b", ca_file=None, connections=8, timeouts=SHORT)

    first = await send_all(pool, 2)
    await asyncio.sleep(0.25)  # the longest rest after one failure
    second = await send_all(pool, 2)
    await pool.close()

    assert [str(outcome) for outcome in first + second] == ["connect_failed"] * 4


async def test_a_peer_that_allows_no_stream_is_left_for_another_connection() -> None:
    async with listening(Peer(limit=0)) as peer:
        pool = Pool(peer.url, ca_file=None, connections=1, timeouts=BRISK)
        [outcome] = await send_all(pool, 1)
        peer.limit = 1

        assert (type(outcome), str(outcome)) == (Unavailable, "no_slot_in_time")
        await asyncio.sleep(0.25)  # a connection that never answered is followed by a short rest
        assert (await send(pool)).status == 200
        await pool.close()


async def test_a_peer_that_gives_no_window_back_is_left_for_another_connection(peer: Peer) -> None:
    peer.gives_credit = False
    pool = Pool(peer.url, ca_file=None, connections=1, timeouts=BRISK)
    await send(pool, body=b"x" * 65_500)
    [outcome] = await send_all(pool, 1)

    assert (type(outcome), str(outcome)) == (Unavailable, "no_slot_in_time")
    assert (await send(pool)).status == 200
    await pool.close()


async def test_a_peer_that_never_greets_is_unavailable_in_time(peer: Peer, pool: Pool) -> None:
    peer.is_mute = True

    with pytest.raises(Unavailable) as trouble:
        await send(pool)

    assert (trouble.value.reason, trouble.value.delivery) == ("connect_failed", Delivery.NOT_PROCESSED)


async def test_close_lets_the_answer_come(peer: Peer) -> None:
    pool = Pool(peer.url, ca_file=None, connections=8, timeouts=DEFAULT_TIMEOUTS)
    peer.script = answer_late
    sending = asyncio.create_task(send(pool))
    await peer.received(1)

    await pool.close()

    assert (await sending).status == 200
    with pytest.raises(Unavailable):
        await send(pool)


async def test_garbage_breaks_only_the_connection(peer: Peer, pool: Pool) -> None:
    peer.script = lambda request: request.connection.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert deliveries(await send_all(pool, 1)) == [Delivery.UNKNOWN]

    peer.script = Request.answer
    await asyncio.sleep(0.25)  # a connection that never answered is followed by a short rest
    assert (await send(pool)).status == 200


async def test_a_user_whose_call_a_connection_is_silent_about_joins_nobody_elses_connection(peer: Peer) -> None:
    def script(request: Request) -> None:
        if request.headers[":path"] == "/freezes":
            request.connection.is_deaf = True
        else:
            _after(0.1, lambda: None if request.connection.is_deaf else request.answer())

    peer.script = script
    pool = Pool(peer.url, ca_file=None, connections=8, timeouts=PATIENT)
    await send(pool, user=2)
    freezing = [asyncio.create_task(outcome(send(pool, "/freezes", user=1)))]
    await _silent(pool)

    others = [asyncio.create_task(outcome(send(pool, user=user))) for user in range(2, 12)]
    await peer.received(3)
    freezing.append(asyncio.create_task(outcome(send(pool, "/freezes", user=1))))

    assert deliveries(await asyncio.gather(*others)) == [200] * len(others)
    assert deliveries(await asyncio.gather(*freezing)) == [Delivery.UNKNOWN] * 2
    assert len({request.connection for request in peer.requests if request.headers[":path"] == "/freezes"}) == 2
    await pool.close()


async def _silent(pool: Pool) -> None:
    """Wait until a connection's peer is asked for a sign of life."""
    async with soon(5):
        while not any(connection.awaits_reply for connection in pool._connections):
            await asyncio.sleep(0.01)
