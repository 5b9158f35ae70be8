"""HTTP clients that could carry FCM: each posts the bytes that ours posts."""

import asyncio
import importlib
import importlib.util
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from io import BytesIO
from typing import Any

import httpx

from bench.providers_target import Outcome, Run, Supply, Target, needing_nothing, one_by_one
from domain.push import Push
from push import fcm

PATH = "/v1/projects/fastbell-demo/messages:send"
HEADERS = {"authorization": f"Bearer ya29.{'x' * 200}", "content-type": "application/json"}
MOST_IN_FLIGHT = 500


def has(module: str) -> bool:
    """Whether a client is installed."""
    return importlib.util.find_spec(module) is not None


@asynccontextmanager
async def httpx_http1(target: Target) -> AsyncIterator[Run]:
    """Use httpx over HTTP/1.1."""
    async with _httpx(target, is_http2=False) as run:
        yield run


@asynccontextmanager
async def httpx_http2(target: Target) -> AsyncIterator[Run]:
    """Use httpx over HTTP/2."""
    async with _httpx(target, is_http2=True) as run:
        yield run


@asynccontextmanager
async def _httpx(target: Target, *, is_http2: bool) -> AsyncIterator[Run]:
    tls = ssl.create_default_context(cafile=target.ca_file)
    limits = httpx.Limits(max_connections=MOST_IN_FLIGHT, max_keepalive_connections=MOST_IN_FLIGHT)
    async with httpx.AsyncClient(
        http2=is_http2, http1=not is_http2, verify=tls, limits=limits, timeout=60, headers=HEADERS, trust_env=False
    ) as client:

        async def send(push: Push) -> None:
            answer = await client.post(target.url + PATH, content=fcm.request(push))
            answer.raise_for_status().json()

        yield one_by_one(send)


@asynccontextmanager
async def aiohttp_http1(target: Target) -> AsyncIterator[Run]:
    """Use aiohttp, which knows HTTP/1.1 only."""
    aiohttp: Any = importlib.import_module("aiohttp")
    tls = ssl.create_default_context(cafile=target.ca_file)
    connector = aiohttp.TCPConnector(limit=MOST_IN_FLIGHT, ssl=tls)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:

        async def send(push: Push) -> None:
            async with session.post(target.url + PATH, data=fcm.request(push)) as answer:
                answer.raise_for_status()
                await answer.json()

        yield one_by_one(send)


@asynccontextmanager
async def pyreqwest_http2(target: Target) -> AsyncIterator[Run]:
    """Use pyreqwest, Rust's reqwest with threads of its own, over HTTP/2."""
    client_module: Any = importlib.import_module("pyreqwest.client")
    builder = client_module.ClientBuilder().base_url(target.url).add_root_certificate_pem(target.ca_file.read_bytes())
    async with builder.default_headers(HEADERS).build() as client:

        async def send(push: Push) -> None:
            answer = await client.post(PATH).body_bytes(fcm.request(push)).build().send()
            if answer.status != 200:
                raise RuntimeError(answer.status)
            await answer.json()

        yield one_by_one(send)


def pycurl_http2(target: Target) -> AbstractAsyncContextManager[Run]:
    """Use pycurl's multi interface over HTTP/2, in a loop of its own."""
    sender = _Curls(target)

    async def run(supply: Supply, in_flight: int, outcome: Outcome) -> None:
        await asyncio.to_thread(sender.work, supply, in_flight, outcome)

    return needing_nothing(run)


class _Curls:
    def __init__(self, target: Target) -> None:
        self._pycurl: Any = importlib.import_module("pycurl")
        self._target = target
        self._multi = self._pycurl.CurlMulti()
        self._multi.setopt(self._pycurl.M_PIPELINING, self._pycurl.PIPE_MULTIPLEX)
        self._began: dict[Any, float] = {}

    def work(self, supply: Supply, in_flight: int, outcome: Outcome) -> None:
        """Send the supply."""
        for _ in range(in_flight):
            self._start(self._prepared(), supply)
        while self._began:
            self._multi.perform()
            _, done, failed = self._multi.info_read()
            if not (done or failed):
                self._multi.select(1.0)
            for curl in [*done, *(curl for curl, *_ in failed)]:
                self._multi.remove_handle(curl)
                took = time.perf_counter() - self._began.pop(curl)
                if curl.getinfo(self._pycurl.RESPONSE_CODE) == 200:
                    outcome.accept(took)
                else:
                    outcome.failures[str(curl.errstr())] += 1
                self._start(curl, supply)

    def _start(self, curl: Any, supply: Supply) -> None:  # noqa: ANN401 (pycurl ships no types)
        if push := next(supply, None):
            self._began[curl] = time.perf_counter()
            curl.setopt(self._pycurl.POSTFIELDS, fcm.request(push))
            curl.setopt(self._pycurl.WRITEDATA, BytesIO())
            self._multi.add_handle(curl)

    def _prepared(self) -> Any:  # noqa: ANN401 (as above)
        curl = self._pycurl.Curl()
        curl.setopt(self._pycurl.URL, self._target.url + PATH)
        curl.setopt(self._pycurl.CAINFO, str(self._target.ca_file))
        curl.setopt(self._pycurl.HTTP_VERSION, self._pycurl.CURL_HTTP_VERSION_2TLS)
        curl.setopt(self._pycurl.PIPEWAIT, 1)
        curl.setopt(self._pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in HEADERS.items()])
        return curl
