"""The OAuth access token for FCM: fetched before the old one expires, once for all sends that wait.

https://developers.google.com/identity/protocols/oauth2/service-account#httprest
"""

import asyncio
import json
import math
import re
import ssl
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import structlog

from push.credential_files import ServiceAccount
from push.http2.proxy import DIRECT, HostAddress, Proxies, Proxy, first, resolved
from push.sender import Delivery, Misconfigured, NoRoom, ProviderTrouble, Unavailable
from push.verdict import code

log = structlog.get_logger()

RENEWED_AT = 0.8  # of its lifetime: 48 minutes of Google's hour
USED_UNTIL = 0.97
REST = 1.0  # seconds after a failed fetch
TRIAL = 60.0  # seconds; a second refusal in this time means that a new token does not help
DOUBT = 0.5  # seconds that sends wait for a new token after one odd refusal, before they use the present one
AGREED = 3  # refused users, with no acceptance since, after which a token is not used any more
MAX_ANSWER = 256 * 1024  # bytes
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
AUDIENCE = "https://oauth2.googleapis.com/token"  # wherever the assertion is sent
MAX_SKEW = 60  # seconds that our clock may be ahead of Google's
ASSERTION_LIFETIME = 3600  # seconds; the longest that Google takes
LIFETIMES = (60.0, 86_400.0)  # seconds; an access token's lifetime is limited to these
_TRANSIENT = {"internal_failure", "server_error", "temporarily_unavailable"}  # OAuth's words for trouble of its own
_TOKEN = re.compile(r"[!-~]{1,8192}")
_PORTS = {"https": 443, "http": 80}


class _Refused(Exception):
    """Google refuses this account a token; a person has to act."""


class _NoAnswer(Exception):
    """The answer is not Google's, or names trouble that time may cure."""


class AccessToken:
    """The token of one service account."""

    def __init__(
        self,
        account: ServiceAccount,
        *,
        ca_file: Path | None,
        timeout: float,
        patience: float,
        proxies: Proxies = DIRECT,
    ) -> None:
        self._account = account
        self._url = httpx.URL(account.token_uri)
        self._proxy = proxies.towards(account.token_uri)
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file else _common_tls()
        self._timeout = timeout
        self._patience = patience
        self._token = ""
        self._fetched_at = self._renew_at = self._unfit_at = self._rest_until = 0.0  # the event loop's clock
        self._on_trial = False  # it replaces one that was refused
        self._refused: set[str] = set()  # users for whom this token was refused, with no acceptance since
        self._fetch: asyncio.Task[None] | None = None
        self._trouble: Callable[[], ProviderTrouble] | None = None

    async def current(self) -> str:
        """Return a valid token; raises Misconfigured, Unavailable."""
        now = asyncio.get_running_loop().time()
        if now >= self._renew_at and not self._fetch and now >= self._rest_until:
            self._fetch = asyncio.create_task(self._fetched())
        if now < self._unfit_at:
            if self._fetch and self._refused:  # in doubt: a new one is better, if it comes at once
                await asyncio.wait([self._fetch], timeout=DOUBT)
            return self._token
        if self._fetch:
            await self._wait(self._fetch)
        if self._trouble:
            raise self._trouble()
        if not self._token:
            raise _unreachable()  # refused in the moment it came
        return self._token

    def refused(self, token: str, user_id: str) -> bool:
        """Note that FCM refused this token for a user. False: so was the one before, and another does not help."""
        now = asyncio.get_running_loop().time()
        if token != self._token:
            return True
        if self._on_trial and now < self._fetched_at + TRIAL:
            return False
        self._refused.add(user_id)
        self._renew_at = 0.0
        if len(self._refused) >= AGREED:  # not one phone's odd answers: sends wait for the next token
            self._token = ""
            self._unfit_at = 0.0
        return True

    def accepted(self) -> None:
        """Note that FCM took the token."""
        self._on_trial = False
        self._refused.clear()

    async def close(self) -> None:
        """Cancel a fetch in progress."""
        if self._fetch:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])

    async def _wait(self, fetch: asyncio.Task[None]) -> None:
        done, _ = await asyncio.wait([fetch], timeout=self._patience)
        if not done:
            raise Unavailable("no_access_token_in_time", Delivery.NOT_PROCESSED)
        if fetch.cancelled():
            raise NoRoom("closing")

    async def _fetched(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                token, lifetime = await self._granted()
        except Exception as error:  # noqa: BLE001 -- no send may wait for a token that does not come
            self._trouble = _refused if isinstance(error, _Refused) else _unreachable
            self._rest_until = loop.time() + REST
            why = str(error) if isinstance(error, _Refused | _NoAnswer) else type(error).__name__
            log.error("access token not renewed", provider="fcm", error=why)  # noqa: TRY400 (a trace may hold the answer)
        else:
            self._trouble = None
            self._on_trial = bool(self._refused)
            self._refused.clear()
            self._token = token
            self._fetched_at = loop.time()
            self._renew_at = self._fetched_at + lifetime * RENEWED_AT
            self._unfit_at = self._fetched_at + lifetime * USED_UNTIL
            log.debug("access token renewed", provider="fcm", lifetime=round(lifetime))
        finally:
            self._fetch = None

    async def _granted(self) -> tuple[str, float]:
        """Fetch from the first address that answers; returns the token and its lifetime in seconds."""
        host, port = (
            self._proxy.address if self._proxy else (self._url.host, self._url.port or _PORTS[self._url.scheme])
        )
        addresses = await resolved(host, port)
        status, body = await first(addresses, partial(self._request, _assertion(self._account)))
        return _read(status, body)

    async def _request(self, assertion: str, to: HostAddress, connected: Callable[[], None]) -> tuple[int, bytes]:
        """Make one request to one address; returns status and body."""
        connections: list[Any] = []

        async def note(event: str, info: dict[str, Any]) -> None:
            if event == "connection.connect_tcp.complete":
                connections.append(info["return_value"])
                connected()

        url = self._url if self._proxy else self._url.copy_with(host=to.host)
        transport = httpx.AsyncHTTPTransport(verify=self._tls, proxy=_at(self._proxy, to), trust_env=False)
        async with httpx.AsyncClient(transport=transport, timeout=None, trust_env=False) as client:  # noqa: S113 (bounded as a whole)
            request = client.build_request(
                "POST",
                url,
                data={"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion},
                headers={"host": self._url.netloc.decode(), "accept-encoding": "identity"},
                extensions={"trace": note, "sni_hostname": self._url.host},
            )
            try:
                return await _answer(await client.send(request, stream=True))
            finally:
                for connection in connections:  # httpx leaks it where a handshake is cancelled
                    await connection.aclose()


async def _answer(response: httpx.Response) -> tuple[int, bytes]:
    body = b""
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_ANSWER:
            raise _NoAnswer("answer_too_long")
    return response.status_code, body


@cache
def _common_tls() -> ssl.SSLContext:
    """Trust the system's authorities: one context for all apps, since loading those takes 30 ms and 1 MB."""
    return ssl.create_default_context()


def _assertion(account: ServiceAccount) -> str:
    """Sign who we are; dated a minute back, since clocks differ."""
    issued_at = int(time.time()) - MAX_SKEW
    claims = {
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": AUDIENCE,
        "iat": issued_at,
        "exp": issued_at + ASSERTION_LIFETIME,
    }
    headers = {"kid": account.private_key_id} if account.private_key_id else None
    return jwt.encode(claims, account.private_key, algorithm="RS256", headers=headers)


def _read(status: int, body: bytes) -> tuple[str, float]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):  # a gateway's page, or worse
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    if status != 200:
        word = code(answer.get("error"), status)
        is_final = 400 <= status < 500 and status not in {408, 429} and word not in _TRANSIENT
        raise _Refused(word) if is_final else _NoAnswer(word)
    token, lifetime = answer.get("access_token"), answer.get("expires_in", ASSERTION_LIFETIME)
    if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
        raise _NoAnswer("no_access_token")
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not math.isfinite(lifetime):
        raise _NoAnswer("no_lifetime")
    shortest, longest = LIFETIMES
    return token, min(max(float(lifetime), shortest), longest)


def _at(proxy: Proxy | None, to: HostAddress) -> httpx.Proxy | None:
    return None if proxy is None else httpx.Proxy(httpx.URL(proxy.url).copy_with(host=to.host))


def _refused() -> Misconfigured:
    return Misconfigured("oauth_refused")


def _unreachable() -> Unavailable:
    return Unavailable("oauth_unreachable", Delivery.NOT_PROCESSED)
