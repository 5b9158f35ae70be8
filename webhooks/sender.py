"""Makes one request to a webhook: signed, bounded in time and size, without redirects, cookies and proxies."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self

import httpcore
import httpx

from domain.webhooks import GONE, Attempted, Outgoing, Webhook, signature
from webhooks.addresses import JudgingBackend, RefusedAddress, UnknownHost, check_url

AT_ONCE = 10  # requests to one webhook
_LONGEST_DRAINED = 16 * 1024  # bytes of an answer that are read, so that the connection can be used again
_DRAINS_FOR = 1.0  # seconds


class WebhookSender:
    """Sends to one webhook, over connections of its own, so that a slow receiver takes nobody else's."""

    def __init__(self, *, allow_private: bool, within: float, verify: ssl.SSLContext) -> None:
        self._allow_private = allow_private
        self._within = within  # seconds, for the whole request
        self._backend = JudgingBackend(allow_private=allow_private)
        transport = httpx.AsyncHTTPTransport(
            verify=verify, trust_env=False, limits=httpx.Limits(max_connections=AT_ONCE, keepalive_expiry=30)
        )
        # httpx has no parameter for the backend; the pool is made anew with the same settings
        transport._pool = httpcore.AsyncConnectionPool(  # noqa: SLF001 -- see above
            ssl_context=verify,
            max_connections=AT_ONCE,
            max_keepalive_connections=AT_ONCE,
            keepalive_expiry=30,
            network_backend=self._backend,
        )
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(within, connect=min(5.0, within)),
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # they would pile up
            headers={"User-Agent": "Fastbell", "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        """Keep connections until the block is left."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close them."""
        await self._http.aclose()
        self._backend.close()

    async def send(self, webhook: Webhook, outgoing: Outgoing) -> Attempted:
        """Make one attempt. Whatever the receiver does, this ends in time and raises nothing."""
        began = time.monotonic()
        status, reason, retry_after = await self._attempt(webhook, outgoing)
        return Attempted(status, reason, round((time.monotonic() - began) * 1000), retry_after)

    async def _attempt(self, webhook: Webhook, outgoing: Outgoing) -> tuple[int | None, str | None, timedelta | None]:
        try:
            check_url(webhook.url, allow_private=self._allow_private)
        except ValueError:
            return None, "url_not_allowed", None
        body, timestamp = outgoing.body, int(time.time())
        message_id = outgoing.webhook_message_id
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(webhook.secrets, message_id, timestamp, body),
        }
        came_to: tuple[int | None, str | None, timedelta | None] | None = None
        try:
            async with (
                asyncio.timeout(self._within),
                self._http.stream("POST", webhook.url, content=body, headers=headers) as answer,
            ):
                came_to = answer.status_code, _verdict(answer.status_code), _retry_after(answer)
                await _drain(answer)
        except Exception as error:  # noqa: BLE001 -- a receiver can cause anything
            if came_to is None:
                return None, _reason(error), None
        assert came_to is not None
        return came_to


def _verdict(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if status == 410:
        return GONE
    return "redirected" if 300 <= status < 400 else f"http_{status}"


async def _drain(answer: httpx.Response) -> None:
    """Read a little of the answer, and nothing of a large or slow one: its connection is closed instead."""
    size = 0
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_DRAINS_FOR):
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > _LONGEST_DRAINED:
                    return


def _retry_after(answer: httpx.Response) -> timedelta | None:
    words = answer.headers.get("retry-after", "")
    return timedelta(seconds=int(words)) if words.isascii() and words.isdecimal() and len(words) < 8 else None


def _reason(error: Exception) -> str:
    """Name what went wrong, the most telling cause first."""
    causes = list(_causes(error))
    for kind, reason in _REASONS.items():
        if any(isinstance(each, kind) for each in causes):
            return reason
    return "request_failed"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_REASONS: dict[type[BaseException], str] = {
    RefusedAddress: "private_address",
    UnknownHost: "unknown_host",
    ssl.SSLError: "tls_failed",
    httpx.ConnectTimeout: "timeout",
    httpx.TimeoutException: "timeout",
    TimeoutError: "timeout",
    httpx.ConnectError: "connect_failed",
    httpx.ProtocolError: "malformed_answer",
    httpx.NetworkError: "connection_lost",
}
