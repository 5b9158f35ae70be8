"""The OAuth access token for FCM: fetched off the event loop, ahead of expiry, once for all who wait."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import requests
import structlog
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError
from google.auth.transport import Response as TransportResponse
from google.auth.transport.requests import Request

from push.http2_proxy import STRAIGHT, Proxies
from push.sender import Fate, Misconfigured, ProviderTrouble, Unavailable
from push.verdict import Verdict, by_status

log = structlog.get_logger()

RENEWED_AT = 0.8  # of its lifetime: 48 minutes of Google's hour
USED_UNTIL = 0.97
REST = 1.0  # seconds between failed fetches
TRIAL = 60.0  # seconds in which a second refusal in a row means that no new token will help


class AccessToken:
    """The token of one service account."""

    def __init__(
        self,
        credential: Credentials,
        *,
        ca_file: Path | None,
        timeout: float,
        patience: float,
        proxies: Proxies = STRAIGHT,
    ) -> None:
        self._credential = credential
        self._session = requests.Session()
        self._session.trust_env = False  # what the environment says was read at the edge
        self._proxies = proxies
        self._straight = partial(Request(self._session), timeout=timeout, verify=str(ca_file) if ca_file else True)
        self._patience = patience
        self._token = ""
        self._fetched_at = self._renew_at = self._unfit_at = self._rest_until = 0.0  # the event loop's clock
        self._on_trial = False
        self._fetch: asyncio.Task[None] | None = None
        self._trouble: Callable[[], ProviderTrouble] | None = None

    async def current(self) -> str:
        """Give a token that is good now; raises Misconfigured, Unavailable."""
        now = asyncio.get_running_loop().time()
        if now >= self._renew_at and not self._fetch and now >= self._rest_until:
            self._fetch = asyncio.create_task(self._fetched())
        if now < self._unfit_at:
            return self._token
        if self._fetch:
            await self._wait(self._fetch)
        if self._trouble:
            raise self._trouble()
        if not self._token:
            raise _oauth_unreachable()  # refused again in the very moment it came
        return self._token

    def refused(self, token: str) -> bool:
        """Take note that FCM refused this token. False: so was the one before, so another will not help."""
        now = asyncio.get_running_loop().time()
        if token != self._token:
            return True
        if self._on_trial and now < self._fetched_at + TRIAL:
            return False
        self._on_trial = True
        self._token = ""  # the others that were refused with it say nothing new
        self._renew_at = self._unfit_at = 0.0
        return True

    def accepted(self) -> None:
        """Take note that FCM likes the token."""
        self._on_trial = False

    async def close(self) -> None:
        """Wait for a fetch under way (a thread cannot be stopped) and close."""
        if self._fetch:
            await self._fetch
        self._session.close()

    async def _wait(self, fetch: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.shield(fetch)
        except TimeoutError:
            raise Unavailable("no_access_token_in_time", Fate.NEVER_PROCESSED) from None

    async def _fetched(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._credential.refresh, self._asked)
        except Exception as error:  # noqa: BLE001 -- a gateway's 200 with HTML makes google-auth raise anything
            refused = isinstance(error, RefreshError) and not error.retryable
            self._trouble = _oauth_refused if refused else _oauth_unreachable
            self._rest_until = loop.time() + REST
            log.error("access token not renewed", provider="fcm", error=type(error).__name__)  # noqa: TRY400 (its text may hold the answer)
        else:
            self._trouble = None
            self._token = str(self._credential.token)
            expiry = self._credential.expiry or datetime.min  # noqa: DTZ901 (google-auth keeps naive UTC)
            lifetime = (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
            self._fetched_at = loop.time()
            self._renew_at = self._fetched_at + lifetime * RENEWED_AT
            self._unfit_at = self._fetched_at + lifetime * USED_UNTIL
            log.debug("access token renewed", provider="fcm", lifetime=round(lifetime))
        finally:
            self._fetch = None

    def _asked(self, url: str, **more: Any) -> TransportResponse:  # noqa: ANN401 (google-auth's signature)
        proxy = self._proxies.towards(url)
        response: TransportResponse = self._straight(url, proxies={"https": proxy.url} if proxy else {}, **more)
        if by_status(response.status) is Verdict.TRANSIENT or response.status == 429:
            raise requests.HTTPError(f"answered {response.status}")  # else google-auth asks again, asleep in its thread
        return response


def _oauth_refused() -> Misconfigured:
    return Misconfigured("oauth_refused")


def _oauth_unreachable() -> Unavailable:
    return Unavailable("oauth_unreachable", Fate.NEVER_PROCESSED)
