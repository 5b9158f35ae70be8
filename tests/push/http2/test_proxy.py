"""Both providers through an HTTP proxy."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from push.apns.sender import ApnsSender
from push.fcm.sender import FcmSender
from push.http2.pool import DEFAULT_TIMEOUTS, Timeouts
from push.http2.proxy import DIRECT, Proxies, Proxy
from push.sender import Accepted, Delivery, Sender, Unavailable
from simulator import Simulator
from tests.push.conftest import APNS_TOKEN, FCM_TOKEN, PATIENT, apns_account, fcm_account, made_of, make_push, outcome
from tests.push.connect_proxy import ConnectProxy, proxying

PROXY = Proxy("http://proxy.test:3128")


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    """Open tunnels until told otherwise."""
    async with proxying() as proxy:
        yield proxy


@asynccontextmanager
async def _sender(
    sim: Simulator, proxies: Proxies, *, is_apns: bool, timeouts: Timeouts = DEFAULT_TIMEOUTS
) -> AsyncIterator[tuple[Sender, str]]:
    sender: Sender
    if is_apns:
        sender, token = ApnsSender(replace(apns_account(sim), proxies=proxies), timeouts=timeouts), APNS_TOKEN
    else:
        sender, token = FcmSender(replace(fcm_account(sim), proxies=proxies), timeouts=timeouts), FCM_TOKEN
    try:
        yield sender, token
    finally:
        await sender.close()


def _target(url: str) -> str:
    return url.removeprefix("https://")


async def test_apple_is_reached_through_the_proxy_over_one_tunnel(sim: Simulator, proxy: ConnectProxy) -> None:
    async with _sender(sim, Proxies(Proxy(proxy.url)), is_apns=True) as (sender, token):
        answers = [await outcome(sender, make_push(token)) for _ in range(3)]

    assert all(isinstance(answer, Accepted) for answer in answers)
    target = _target(sim.environment["APNS_URL"])
    assert proxy.heads == [[f"CONNECT {target} HTTP/1.1", f"Host: {target}"]]


async def test_google_and_its_access_token_are_reached_through_the_proxy(sim: Simulator, proxy: ConnectProxy) -> None:
    async with _sender(sim, Proxies(Proxy(proxy.url)), is_apns=False) as (sender, token):
        answers = [await outcome(sender, make_push(token)) for _ in range(3)]

    assert all(isinstance(answer, Accepted) for answer in answers)
    assert proxy.targets == [_target(sim.environment["FCM_URL"])] * 2, "the access token, and the one connection"


@pytest.mark.parametrize("is_apns", [True, False], ids=["apns", "fcm"])
async def test_the_proxy_is_shown_its_password_and_nobody_else_is(
    sim: Simulator, proxy: ConnectProxy, capsys: pytest.CaptureFixture[str], *, is_apns: bool
) -> None:
    proxies = Proxies(Proxy(proxy.url.replace("://", "://push:s%40fe@")))
    async with _sender(sim, proxies, is_apns=is_apns) as (sender, token):
        answer = await outcome(sender, make_push(token))

    assert isinstance(answer, Accepted)
    shown = {line for head in proxy.heads for line in head if line.startswith("Proxy-Authorization")}
    assert shown == {f"Proxy-Authorization: Basic {base64.b64encode(b'push:s@fe').decode()}"}
    assert not any("proxy-authorization" in request.headers for request in sim.requests)
    assert "fe@" not in repr(proxies) + capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "proxy_refused_407"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "proxy_refused_502"),
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\n<html>busy</html>", "proxy_refused_503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "proxy_broken"),
        (b"", "proxy_broken"),
        (None, "connect_failed"),
    ],
    ids=["407", "502", "503", "no proxy at all", "hangs up", "silent"],
)
async def test_a_proxy_that_leads_nowhere_is_told_before_any_call(
    sim: Simulator, proxy: ConnectProxy, answer: bytes | None, reason: str
) -> None:
    proxy.answer = answer
    async with _sender(sim, Proxies(Proxy(proxy.url)), is_apns=True, timeouts=PATIENT) as (sender, token):
        apns = await outcome(sender, make_push(token))
    async with _sender(sim, Proxies(Proxy(proxy.url)), is_apns=False, timeouts=PATIENT) as (sender, token):
        fcm = await outcome(sender, make_push(token))

    assert made_of(apns) == (Unavailable, reason, Delivery.NOT_PROCESSED, None)
    assert isinstance(fcm, Unavailable)
    assert (fcm.reason, fcm.delivery) == ("oauth_unreachable", Delivery.NOT_PROCESSED)
    assert len(sim.requests) == 0


async def test_a_proxy_that_is_not_there_is_told_before_any_call(sim: Simulator) -> None:
    async with proxying() as gone:
        url = gone.url
    async with _sender(sim, Proxies(Proxy(url)), is_apns=True) as (sender, token):
        answer = await outcome(sender, make_push(token))

    assert made_of(answer) == (Unavailable, "proxy_unreachable", Delivery.NOT_PROCESSED, None)


async def test_a_tunnel_that_breaks_is_dug_again(sim: Simulator, proxy: ConnectProxy) -> None:
    async with _sender(sim, Proxies(Proxy(proxy.url)), is_apns=True) as (sender, token):
        first = await outcome(sender, make_push(token))
        proxy.cut()
        second = await outcome(sender, make_push(token))
        third = await outcome(sender, make_push(token))

    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted | Unavailable), "the cut may come before or behind the call"
    assert isinstance(third, Accepted)


@pytest.mark.parametrize("is_apns", [True, False], ids=["apns", "fcm"])
async def test_a_spared_host_is_reached_straight(sim: Simulator, proxy: ConnectProxy, *, is_apns: bool) -> None:
    async with _sender(sim, Proxies(Proxy(proxy.url), ("127.0.0.0/8",)), is_apns=is_apns) as (sender, token):
        answer = await outcome(sender, make_push(token))

    assert isinstance(answer, Accepted)
    assert proxy.heads == []


@pytest.mark.parametrize("is_apns", [True, False], ids=["apns", "fcm"])
async def test_what_the_environment_says_is_for_the_edge_to_read(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, *, is_apns: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with _sender(sim, DIRECT, is_apns=is_apns) as (sender, token):
        assert isinstance(await outcome(sender, make_push(token)), Accepted)


@pytest.mark.parametrize(
    ("spared", "url", "is_straight"),
    [
        ((), "https://api.push.apple.com", False),
        ((), "http://api.push.apple.com", True),
        (("*",), "https://api.push.apple.com", True),
        (("apple.com",), "https://api.push.apple.com", True),
        ((".apple.com",), "https://api.push.apple.com", True),
        (("*.apple.com",), "https://api.push.apple.com", True),
        (("apple.com",), "https://pineapple.com", False),
        (("push.apple.com",), "https://apple.com", False),
        (("api.push.apple.com:2197",), "https://api.push.apple.com:2197", True),
        (("api.push.apple.com:2197",), "https://api.push.apple.com", False),
        (("api.push.apple.com:443",), "https://api.push.apple.com", True),
        (("10.0.0.0/8",), "https://10.1.2.3", True),
        (("10.0.0.0/8",), "https://11.1.2.3", False),
        (("10.0.0.0/8",), "https://ten.example", False),
        (("nonsense/8",), "https://10.1.2.3", False),
        (("::1",), "https://[::1]:8443", True),
        (("[::1]:8443",), "https://[::1]:8443", True),
        (("fd00::/8",), "https://[fd00::7]", True),
        (("example", "google.com"), "https://fcm.googleapis.com", False),
    ],
)
def test_which_addresses_are_spared(spared: tuple[str, ...], url: str, *, is_straight: bool) -> None:
    assert (Proxies(PROXY, spared).towards(url) is None) is is_straight
