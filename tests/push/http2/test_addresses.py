"""A host has several addresses, and the first does not answer: it is passed over, on every way that a push takes."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from push.apns.sender import ApnsSender
from push.fcm.sender import FcmSender
from push.http2.pool import Pool
from push.http2.proxy import DIRECT, MAX_ADDRESSES, HostAddress, Proxies, Proxy, first, resolved
from push.sender import Accepted, Sender
from simulator import Simulator
from tests.busy import in_time, soon
from tests.push.conftest import APNS_TOKEN, FCM_TOKEN, PATIENT, apns_account, fcm_account, make_push, outcome
from tests.push.connect_proxy import proxying
from tests.push.peer import Peer, PeerConnection

BAD, GOOD = "127.0.0.2", "127.0.0.1"
FIRST_PUSH_WITHIN = 1.5  # seconds


@pytest.fixture
async def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `localhost` resolves to; the resolver is the world's, and this machine's knows but one address."""
    known, loop = [BAD, GOOD], asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: str, port: int, **more: Any) -> list[Any]:
        if host != "localhost":
            return await real(host, port, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return known


@contextmanager
def blackholed(port: int) -> Iterator[None]:
    """Listen with a queue that is full: what else comes is dropped, as on a way that leads nowhere."""
    with ExitStack() as held:
        server = held.enter_context(socket.socket())
        server.bind((BAD, port))
        server.listen(0)
        for _ in range(4):
            filling = held.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex((BAD, port))
        yield


@contextmanager
def refused(_: int) -> Iterator[None]:
    """Listen to nothing."""
    yield


@contextmanager
def silent(port: int) -> Iterator[None]:
    """Take connections, and say nothing on them: nobody looks."""
    with socket.socket() as server:
        server.bind((BAD, port))
        server.listen(16)
        yield


Trap = Callable[[int], Any]
TRAPS = [blackholed, refused, silent]


def on_localhost(url: str) -> str:
    return url.replace("127.0.0.1", "localhost")


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


@asynccontextmanager
async def sender_of(
    sim: Simulator, directory: Path, provider: str, proxies: Proxies = DIRECT
) -> AsyncIterator[tuple[Sender, str]]:
    """The sender whose every address has the name `localhost`."""
    if provider == "apns":
        account = apns_account(sim)
        sender: Sender = ApnsSender(replace(account, url=on_localhost(account.url), proxies=proxies), timeouts=PATIENT)
    else:
        google = fcm_account(sim)
        file = directory / "account.json"
        content = json.loads(google.service_account_file.read_text())
        file.write_text(json.dumps(content | {"token_uri": on_localhost(content["token_uri"])}))
        sender = FcmSender(
            replace(google, url=on_localhost(google.url), service_account_file=file, proxies=proxies), timeouts=PATIENT
        )
    try:
        yield sender, APNS_TOKEN if provider == "apns" else FCM_TOKEN
    finally:
        await sender.close()


@pytest.mark.usefixtures("addresses")
@pytest.mark.parametrize("provider", ["apns", "fcm"])
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
async def test_a_first_address_that_does_not_answer_is_passed_over(
    sim: Simulator, tmp_path: Path, provider: str, trap: Trap
) -> None:
    """FCM asks for an access token first, over the same two addresses."""
    url = sim.environment["APNS_URL" if provider == "apns" else "FCM_URL"]
    tokens = sim.access_tokens_requested
    with trap(port_of(url)):
        async with sender_of(sim, tmp_path, provider) as (sender, token):
            began = time.monotonic()
            answer = await outcome(sender, make_push(token))
            took = time.monotonic() - began

    assert isinstance(answer, Accepted)
    assert in_time(took, FIRST_PUSH_WITHIN)
    assert sim.access_tokens_requested - tokens == (provider == "fcm")


@pytest.mark.usefixtures("addresses")
@pytest.mark.parametrize("provider", ["apns", "fcm"])
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
async def test_a_proxys_first_address_that_does_not_answer_is_passed_over(
    sim: Simulator, tmp_path: Path, provider: str, trap: Trap
) -> None:
    async with proxying() as proxy:
        proxies = Proxies(Proxy(on_localhost(proxy.url)))
        with trap(port_of(proxy.url)):
            async with sender_of(sim, tmp_path, provider, proxies) as (sender, token):
                began = time.monotonic()
                answer = await outcome(sender, make_push(token))
                took = time.monotonic() - began

    assert isinstance(answer, Accepted)
    assert in_time(took, FIRST_PUSH_WITHIN)
    assert all(target.startswith("localhost:") for target in proxy.targets), "the proxy resolves the name itself"


async def test_an_address_that_answers_too_late_is_hung_up_on(addresses: list[str], peer: Peer) -> None:
    late, loop = Peer(), asyncio.get_running_loop()
    late.is_mute = True
    server = await loop.create_server(lambda: PeerConnection(late), BAD, port_of(peer.url))
    pool = Pool(on_localhost(peer.url), ca_file=None, connections=1, timeouts=PATIENT)
    async with soon(5), pool.lease():
        [line] = late.connections
        while not line.transport.is_closing():
            await asyncio.sleep(0.01)
    await pool.close()
    server.close()

    assert len(peer.connections) == 1
    assert len(addresses) == 2


async def test_where_no_address_answers_the_wait_is_bounded_as_a_whole(addresses: list[str]) -> None:
    addresses[:] = [f"127.0.0.{number}" for number in range(2, 12)]
    pool = Pool("http://localhost:9", ca_file=None, connections=1, timeouts=PATIENT)
    with pytest.raises(Exception, match="connect_failed"):
        async with soon(5), pool.lease():
            pass
    await pool.close()


async def test_a_resolver_that_never_answers_costs_the_wait_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    pool = Pool("http://silent.test:9", ca_file=None, connections=1, timeouts=PATIENT)
    with pytest.raises(Exception, match="connect_failed"):
        async with soon(5), pool.lease():
            pass
    await pool.close()


async def test_families_take_turns_and_no_name_has_addresses_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = (socket.AF_INET6, ("::1", 9, 0, 0)), (socket.AF_INET, ("127.0.0.1", 9))
    found = [six, six, (socket.AF_INET6, ("::2", 9, 0, 0)), four]
    found += [(socket.AF_INET, (f"127.0.1.{number}", 9)) for number in range(50)]

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    addresses = await resolved("many.test", 9)

    assert [address.host for address in addresses[:5]] == ["::1", "127.0.0.1", "::2", "127.0.1.0", "127.0.1.1"]
    assert len(addresses) == MAX_ADDRESSES


def numbered(count: int) -> list[HostAddress]:
    return [HostAddress(socket.AF_INET, (f"127.0.0.{number}", 9)) for number in range(count)]


async def test_the_last_trouble_is_reported_and_none_at_all_is_trouble_too() -> None:
    async def fail(to: HostAddress, _: Callable[[], None]) -> None:
        raise ConnectionRefusedError(to.host)

    with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.2"):
        await first(numbered(3), fail)
    with pytest.raises(OSError, match="no address"):
        await first([], fail)


async def test_two_that_succeed_in_one_moment_are_one_and_one_to_discard() -> None:
    go, discarded = asyncio.Event(), list[str]()

    async def succeed(to: HostAddress, _: Callable[[], None]) -> str:
        if to.host == "127.0.0.1":
            go.set()
        await go.wait()
        return to.host

    taken = await first(numbered(2), succeed, discard=discarded.append)

    assert sorted([taken, *discarded]) == ["127.0.0.0", "127.0.0.1"]


async def test_who_stops_waiting_stops_every_attempt() -> None:
    begun, stopped = asyncio.Event(), list[str]()

    async def hang(to: HostAddress, _: Callable[[], None]) -> None:
        if to.host == "127.0.0.1":
            begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(to.host)

    racing = asyncio.create_task(first(numbered(2), hang))
    await begun.wait()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing

    assert sorted(stopped) == ["127.0.0.0", "127.0.0.1"]
