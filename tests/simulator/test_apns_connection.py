"""How APNs treats a connection: stream limits and flow control."""

from pathlib import Path

from simulator import Behaviour, Simulator
from simulator.http.http2 import MovingLimit, StreamLimits
from tests.simulator.raw_http2 import RawHttp2

REFUSED_STREAM = 7


async def test_one_stream_until_the_first_accepted_push_then_a_thousand(sim: Simulator, raw: RawHttp2) -> None:
    first, second = raw.send(), raw.send()

    accepted, refused = await raw.heard(first), await raw.heard(second)
    await raw.until(lambda: raw.limits == [1, 1000])
    burst = [raw.send() for _ in range(100)]

    assert accepted.status == 200
    assert (refused.status, refused.reset_code) == (None, REFUSED_STREAM)
    assert {(await raw.heard(stream)).status for stream in burst} == {200}
    assert [(request.status, request.reason) for request in sim.requests][:2] == [
        (200, None),
        (None, "REFUSED_STREAM"),
    ]


async def test_a_refused_stream_never_reached_the_phone(sim: Simulator, raw: RawHttp2) -> None:
    first, second = raw.send(), raw.send(token="b" * 64)

    await raw.heard(first)
    await raw.heard(second)

    assert sim.phones.get("b" * 64) is None


async def test_a_rejected_push_drops_the_limit_to_one_until_the_next_accepted_one(raw: RawHttp2) -> None:
    await raw.push()
    await raw.push(token="bad")
    await raw.push(token="bad")
    first, second = raw.send(), raw.send()

    assert (await raw.heard(first)).status == 200
    assert (await raw.heard(second)).reset_code == REFUSED_STREAM
    await raw.until(lambda: raw.limits == [1, 1000, 1, 1000])


def test_a_lower_limit_holds_once_the_client_has_acknowledged_it() -> None:
    limit = MovingLimit(StreamLimits(initial=1, raised=1000, after_rejection=1))
    limit.acknowledged()

    limit.learn(200)
    assert limit.announcement()
    limit.learn(400)
    assert limit.announcement()
    admitted = [limit.admitted]
    for _ in range(2):
        limit.acknowledged()
        admitted.append(limit.admitted)

    assert admitted == [1000, 1000, 1]
    assert limit.announcement() == b""


async def test_the_drop_after_a_rejection_can_be_switched_off(tmp_path: Path) -> None:
    behaviour = Behaviour(apns_stream_limit=50, stream_limit_after_rejection=None)
    async with (
        Simulator.start(run_dir=tmp_path, behaviour=behaviour) as sim,
        RawHttp2.to(sim, sim.ports.apns) as raw,
    ):
        for token in ("a" * 64, "bad", "a" * 64):
            await raw.push(token=token)

        assert raw.limits == [1, 50]


async def test_http2_is_spoken_without_alpn_too(sim: Simulator) -> None:
    async with RawHttp2.to(sim, sim.ports.apns, alpn=None) as raw:
        assert (await raw.push()).status == 200


async def test_an_error_body_waits_for_the_clients_window(sim: Simulator) -> None:
    async with RawHttp2.to(sim, sim.ports.apns, window=10) as raw:
        stream = raw.send(token="bad")
        raw.flush()
        await raw.until(lambda: bool(raw.so_far(stream).frames))
        before = list(raw.so_far(stream).frames)
        raw.h2.increment_flow_control_window(100, stream)
        heard = await raw.heard(stream)

    assert before == [b'{"reason":']
    assert heard.body == {"reason": "BadDeviceToken"}


async def test_received_bytes_are_credited_back(tmp_path: Path) -> None:
    body = b'{"aps":{}}' + b" " * 4000
    async with (
        Simulator.start(run_dir=tmp_path, behaviour=Behaviour(receive_window=65_535)) as sim,
        RawHttp2.to(sim, sim.ports.apns) as raw,
    ):
        statuses = {(await raw.push(body=body)).status for _ in range(100)}
        window = raw.h2.outbound_flow_control_window

    assert statuses == {200}
    assert window > 32_000


async def test_a_large_body_in_many_frames_is_credited_per_stream(sim: Simulator, raw: RawHttp2) -> None:
    await raw.push()
    stream = raw.send(body=b"")  # replaced below: a body of 200 kB needs stream credit on the way
    assert (await raw.heard(stream)).status == 400
    stream = raw.h2.get_next_available_stream_id()
    headers = [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", f"/3/device/{'a' * 64}")]
    headers += [("authorization", raw.authorization), ("apns-topic", sim.environment["APNS_TOPIC"])]
    raw.h2.send_headers(stream, headers)
    left = 200_000
    while left:
        await raw.until(lambda: raw.h2.local_flow_control_window(stream) > 0)
        size = min(left, raw.h2.local_flow_control_window(stream), 16_384)
        left -= size
        raw.h2.send_data(stream, b" " * size, end_stream=not left)
        raw.flush()

    heard = await raw.heard(stream)

    assert (heard.status, heard.body) == (413, {"reason": "PayloadTooLarge"})


async def test_a_broken_client_gets_a_goaway(raw: RawHttp2) -> None:
    assert raw._transport is not None
    raw._transport.write(b"\x00\x00\x00\x00\x00\x00\x00\x00\x00")  # DATA on stream 0

    await raw.until(lambda: raw.is_closed)

    assert raw.goaway is not None
    assert raw.goaway.error_code == 1  # PROTOCOL_ERROR


async def test_three_thousand_refusals_on_one_connection_are_all_answered(tmp_path: Path) -> None:
    behaviour = Behaviour(stream_limit_after_rejection=None)
    async with Simulator.start(run_dir=tmp_path, behaviour=behaviour) as sim, RawHttp2.to(sim, sim.ports.apns) as raw:
        await raw.push()
        heard = []
        for _ in range(30):  # bursts, as h2 counts its open streams for each new one
            burst = [raw.send(token="bad") for _ in range(100)]
            heard += [(await raw.heard(stream)).body["reason"] for stream in burst]

    assert heard == ["BadDeviceToken"] * 3000
