"""Scripted trouble with whole connections: silence, cuts in the middle, ports where connections hang."""

import asyncio
import json
import socket
from pathlib import Path

import httpx
import pytest

from simulator import Simulator
from tests.simulator.raw_http2 import TOKEN, RawHttp2
from tests.simulator.test_fcm import TOKEN as FCM_TOKEN
from tests.simulator.test_fcm import message
from tests.simulator.tokens import access_token, trusting

OTHER = "b" * 64


@pytest.mark.parametrize("processed", [True, False])
async def test_a_frozen_connection_answers_nothing_and_still_counts(
    sim: Simulator, raw: RawHttp2, processed: bool
) -> None:
    await raw.push()
    sim.faults.add(provider="apns", token=OTHER, fault="freeze", processed=processed)
    raw.send(token=OTHER)
    raw.flush()
    await sim.requests.wait(2)
    raw.send(token="c" * 64)
    raw.h2.ping(b"12345678")
    raw.flush()

    [*_, after] = await sim.requests.wait(3)
    with pytest.raises(TimeoutError):
        await raw.until(lambda: raw.pings_answered > 0 or raw.is_closed, within=0.05)

    assert (after.status, after.reason) == (None, "frozen")
    assert (sim.phones.get(OTHER) is not None) is processed
    assert sim.phones.get("c" * 64) is None


async def test_a_silent_stream_does_not_silence_its_connection(sim: Simulator, raw: RawHttp2) -> None:
    await raw.push()
    sim.faults.add(provider="apns", token=OTHER, fault="silent")
    raw.send(token=OTHER)
    raw.h2.ping(b"12345678")

    assert (await raw.push()).status == 200
    await raw.until(lambda: raw.pings_answered == 1)


@pytest.mark.parametrize("status", [None, 503])
async def test_an_answer_is_cut_by_a_reset_in_its_middle(sim: Simulator, raw: RawHttp2, status: int | None) -> None:
    sim.faults.add(provider="apns", fault="cut_answer", status=status)

    heard = await raw.push()

    assert (heard.status, heard.reset_code, heard.is_ended) == (status or 200, 2, False)
    assert [(request.status, request.reason) for request in sim.requests] == [(None, "cut_answer")]
    assert (sim.phones.get(TOKEN) is not None) is (status is None)


async def test_an_answer_is_cut_with_its_connection(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", fault="cut_answer", status=500, by="close")
    stream = raw.send()
    raw.flush()

    await raw.until(lambda: raw.is_closed)

    assert raw.so_far(stream).status == 500
    assert b"".join(raw.so_far(stream).frames).startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize("is_http2", [True, False])
async def test_half_an_answer_of_fcms_is_no_answer(sim: Simulator, is_http2: bool) -> None:
    async with httpx.AsyncClient(base_url=sim.environment["FCM_URL"], verify=trusting(sim), http2=is_http2) as client:
        headers = {"authorization": f"Bearer {await access_token(sim, client)}"}
        sim.faults.add(provider="fcm", fault="cut_answer", count=1)
        with pytest.raises(httpx.TransportError):
            await client.post("/v1/projects/fastbell-demo/messages:send", json={"message": message()}, headers=headers)

    assert sim.phone(FCM_TOKEN).accepted_count == 1


async def test_an_answer_that_nobody_hears_is_not_written_down_as_sent(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", fault="slow", delay=0.05)
    raw.h2.reset_stream(raw.send())
    raw.flush()
    [request] = await sim.requests.wait(1)

    while request.reason is None:
        await asyncio.sleep(0.01)

    assert (request.status, request.reason) == (None, "nobody_listens")


async def test_a_port_hangs_at_connect_and_comes_back(sim: Simulator) -> None:
    sim.faults.add(provider="apns", fault="stall_connections", at="connect")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.open_connection("127.0.0.1", sim.ports.apns), 0.1)
    assert not sim.is_open
    sim.faults.clear()

    async with RawHttp2.to(sim, sim.ports.apns) as again:
        assert (await again.push()).status == 200


async def test_a_port_that_refuses_connections_is_taken_by_nobody_else_meanwhile(tmp_path: Path) -> None:
    async with Simulator.start(run_dir=tmp_path) as sim:
        sim.faults.add(provider="apns", fault="refuse_connections")

        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", sim.ports.apns))


async def test_a_port_shakes_hands_and_never_greets(sim: Simulator) -> None:
    sim.faults.add(provider="apns", fault="stall_connections", at="greeting")

    reader, writer = await asyncio.open_connection("127.0.0.1", sim.ports.apns, ssl=trusting(sim))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    writer.close()
    await writer.wait_closed()
    sim.faults.clear()

    async with RawHttp2.to(sim, sim.ports.apns) as again:
        assert (await again.push()).status == 200


async def test_trouble_may_begin_later(sim: Simulator, raw: RawHttp2) -> None:
    statuses, was_open = [], []
    for begins, lasts in ((3600, 3600), (0.05, 3600), (0.05, 0.05)):  # it has not begun, it goes on, it is over
        sim.faults.clear()
        sim.faults.add(provider="apns", fault="empty_body", after_seconds=begins, for_seconds=lasts)
        sim.faults.add(provider="fcm", fault="refuse_connections", after_seconds=begins, for_seconds=lasts)
        await asyncio.sleep(0.12)
        statuses.append((await raw.push()).status)
        was_open.append(sim.is_open)

    assert statuses == [200, 503, 200]
    assert was_open == [True, False, True]


async def test_a_refused_message_is_recorded_with_its_token(sim: Simulator) -> None:
    async with RawHttp2.to(sim, sim.ports.fcm) as raw:
        sim.faults.add(provider="fcm", fault="silent", processed=False)
        path = "/v1/projects/fastbell-demo/messages:send"
        for number in range(101):
            raw.send({":path": path}, json.dumps({"message": {"token": f"phone-{number}"}}).encode())
        raw.flush()

        requests = await sim.requests.wait(101)

    assert [request.token for request in requests] == [f"phone-{number}" for number in range(101)]
    assert [request.reason for request in requests] == ["silent"] * 100 + ["REFUSED_STREAM"]
