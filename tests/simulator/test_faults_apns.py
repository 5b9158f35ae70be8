"""Scripted trouble on APNs."""

import asyncio
import json

import pytest

from simulator import Simulator
from tests.simulator.raw_http2 import TOKEN, RawHttp2

OTHER = "b" * 64


async def test_an_answer_can_be_scripted_for_one_token(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", token=OTHER, fault="answer", status=429, reason="TooManyRequests", count=1)

    first = await raw.push(token=OTHER)
    untouched = await raw.push()
    second = await raw.push(token=OTHER)

    assert (first.status, first.body) == (429, {"reason": "TooManyRequests"})
    assert (untouched.status, second.status) == (200, 200)
    assert [(request.status, request.reason) for request in sim.requests.for_token(OTHER)] == [
        (429, "TooManyRequests"),
        (200, None),
    ]


async def test_a_scripted_410_says_when(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", fault="answer", status=410, reason="Unregistered", timestamp=1_700_000_000_000)

    heard = await raw.push()

    assert heard.body == {"reason": "Unregistered", "timestamp": 1_700_000_000_000}


async def test_a_slow_answer_comes_late_but_the_phone_has_it_at_once(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", fault="slow", delay=0.2)
    started = asyncio.get_running_loop().time()
    stream = raw.send()
    raw.flush()

    await sim.phones.received(TOKEN)
    answered_by_then = raw.so_far(stream).is_over
    heard = await raw.heard(stream)

    assert heard.status == 200
    assert not answered_by_then
    assert round(asyncio.get_running_loop().time() - started, 3) >= 0.2  # its clock has steps of 1 ms


async def test_a_slow_answer_comes_once_when_the_faults_are_ended(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", fault="slow", delay=3600)
    stream = raw.send()
    raw.flush()
    await sim.phones.received(TOKEN)
    answered_by_then = raw.so_far(stream).is_over

    sim.faults.clear()

    assert (await raw.heard(stream)).status == 200
    assert not answered_by_then
    assert len(sim.phone(TOKEN).log) == 1


@pytest.mark.parametrize("processed", [True, False])
async def test_a_silent_stream_is_never_answered(sim: Simulator, raw: RawHttp2, processed: bool) -> None:
    sim.faults.add(provider="apns", fault="silent", processed=processed)
    stream = raw.send()
    raw.flush()

    [request] = await sim.requests.wait(1)
    with pytest.raises(TimeoutError):
        await raw.until(lambda: raw.so_far(stream).is_over, within=0.05)

    assert (request.status, request.reason) == (None, "silent")
    assert (sim.phones.get(TOKEN) is not None) is processed


@pytest.mark.parametrize("processed", [True, False])
async def test_a_stream_can_be_reset(sim: Simulator, raw: RawHttp2, processed: bool) -> None:
    sim.faults.add(provider="apns", fault="reset", code=8, processed=processed)

    heard = await raw.push()

    assert (heard.status, heard.reset_code) == (None, 8)
    assert (sim.phones.get(TOKEN) is not None) is processed


@pytest.mark.parametrize("processed", [True, False])
async def test_a_connection_can_be_cut(sim: Simulator, raw: RawHttp2, processed: bool) -> None:
    sim.faults.add(provider="apns", fault="close", processed=processed)
    stream = raw.send()
    raw.flush()

    await raw.until(lambda: raw.is_closed)

    assert raw.so_far(stream).status is None
    assert raw.goaway is None
    assert (sim.phones.get(TOKEN) is not None) is processed


@pytest.mark.parametrize("answer_in_flight", [True, False])
@pytest.mark.parametrize("processed", [True, False])
async def test_goaway_draws_a_true_line(sim: Simulator, raw: RawHttp2, processed: bool, answer_in_flight: bool) -> None:
    await raw.push()
    await raw.until(lambda: raw.limits == [1, 1000])
    sim.faults.add(provider="apns", token=TOKEN, fault="slow", delay=0.1)
    sim.faults.add(provider="apns", token=OTHER, fault="goaway", processed=processed, answer_in_flight=answer_in_flight)
    below, trigger, above = raw.send(), raw.send(token=OTHER), raw.send(token="c" * 64)
    raw.flush()

    await raw.until(lambda: raw.is_closed)

    assert raw.goaway is not None
    assert raw.goaway.last_stream_id == (trigger if processed else below)
    assert json.loads(raw.goaway.additional_data) == {"reason": "Shutdown"}
    assert raw.so_far(below).status == (200 if answer_in_flight else None)
    assert raw.so_far(trigger).status == (200 if answer_in_flight and processed else None)
    assert raw.so_far(above).status is None
    assert [(request.status, request.reason) for request in sim.requests.for_token("c" * 64)] == [
        (None, "AFTER_GOAWAY")
    ]
    assert len(sim.requests.for_token(OTHER)) == 1
    assert len(sim.requests) == 4
    assert sim.phone(TOKEN).accepted_count == 2
    assert (sim.phones.get(OTHER) is not None) is processed
    assert sim.phones.get("c" * 64) is None


async def test_a_push_can_be_delivered_and_still_fail(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", fault="accept_then_fail")

    heard = await raw.push()

    assert (heard.status, heard.body) == (503, {"reason": "ServiceUnavailable"})
    assert sim.phone(TOKEN).accepted_count == 1


async def test_error_bodies_can_be_empty_split_or_html(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", fault="empty_body", status=500, count=1)
    sim.faults.add(provider="apns", fault="split_body", status=400, reason="BadTopic", count=1)
    sim.faults.add(provider="apns", fault="html", count=1)

    empty, split, html = [await raw.push() for _ in range(3)]

    assert (empty.status, empty.frames) == (500, [])
    assert (split.status, split.frames) == (400, [b'{"reason":', b"", b'"BadTopic"}', b""])
    assert (html.status, html.headers["content-type"]) == (502, "text/html; charset=UTF-8")
    assert b"".join(html.frames).startswith(b"<!DOCTYPE html>")


async def test_a_share_of_the_traffic_fails_the_same_way_each_time(sim: Simulator, raw: RawHttp2) -> None:
    runs = []
    for _ in range(2):
        sim.faults.clear()
        sim.faults.add(provider="apns", fault="empty_body", status=503, share=0.3, seed=7)
        runs.append([(await raw.push()).status for _ in range(100)])

    assert runs[0] == runs[1]
    assert 15 < runs[0].count(503) < 45


async def test_a_fault_can_let_some_pass_first_and_end_by_time(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", fault="empty_body", skip=2, for_seconds=3600)
    during = [(await raw.push()).status for _ in range(3)]
    sim.faults.clear()

    sim.faults.add(provider="apns", fault="empty_body", for_seconds=0.1)
    await asyncio.sleep(0.12)
    after = (await raw.push()).status

    assert (during, after) == ([200, 200, 503], 200)


async def test_one_environment_fails_alone(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", environment="sandbox", fault="empty_body")
    async with RawHttp2.to(sim, sim.ports.apns_sandbox) as sandbox:
        assert ((await raw.push()).status, (await sandbox.push(token=OTHER)).status) == (200, 503)


async def test_connections_are_refused_and_come_back(sim: Simulator, raw: RawHttp2) -> None:
    await raw.push()
    fault = sim.faults.add(provider="apns", fault="refuse_connections")

    await raw.until(lambda: raw.is_closed)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", sim.ports.apns)
    assert not sim.is_open
    sim.faults.remove(fault.id)

    async with RawHttp2.to(sim, sim.ports.apns) as again:
        assert (await again.push()).status == 200


async def test_refusal_ends_by_itself_and_may_spare_open_connections(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", fault="refuse_connections", for_seconds=3600, drop_open=False)

    assert (await raw.push()).status == 200
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", sim.ports.apns)
    sim.faults.clear()

    sim.faults.add(provider="apns", fault="refuse_connections", for_seconds=0.1, drop_open=False)
    assert not sim.is_open
    await asyncio.sleep(0.15)

    async with RawHttp2.to(sim, sim.ports.apns) as again:
        assert (await again.push()).status == 200


async def test_a_stalling_port_connects_but_never_shakes_hands(sim: Simulator) -> None:
    sim.faults.add(provider="apns", fault="stall_connections")

    reader, writer = await asyncio.open_connection("127.0.0.1", sim.ports.apns)
    writer.write(b"hello")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)

    writer.close()
    await writer.wait_closed()
