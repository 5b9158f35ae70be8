"""The doctor's look at what is reached over plain HTTPS: the key set of the issuer, and clocks of others."""

import ssl
import time
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from api.jwks import PLAIN, KeySet, read_bounded, usable_keys
from commands.doctor_certificates import expiry_line
from commands.doctor_clock import clock_line
from commands.doctor_lines import Area, Line
from push.http2_look import expiry
from push.http2_proxy import Proxies

BEARERS = Area("bearer tokens")

_TIMEOUT = 5.0  # seconds


async def look_at_key_set(url: str) -> Sequence[Line]:
    """See whether bearer tokens could be checked with what is at AUTH_JWKS_URL, which is reached without a proxy."""
    to_do = "Set AUTH_JWKS_URL to the address that the issuer names as jwks_uri, and let this machine reach it."
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT) as http, http.stream("GET", url, headers=PLAIN) as answer:
            told = [*_told_by(BEARERS, "the issuer", answer)]
            answer.raise_for_status()
            usable = usable_keys(await read_bounded(answer))
    except httpx.HTTPStatusError as error:
        return [BEARERS.failure(f"the key set's address answers {error.response.status_code}", to_do)]
    except (httpx.HTTPError, OSError) as error:
        return [BEARERS.failure(f"the key set cannot be fetched ({type(error).__name__})", to_do)]
    except ValueError as error:
        return [BEARERS.failure(f"no key set is at AUTH_JWKS_URL ({type(error).__name__})", to_do), *told]
    if not usable:
        found = f"the key set has no key for {' or '.join(KeySet.algorithms)}"
        return [BEARERS.failure(found, "Let the issuer sign with RS256 (2 048 bits or more) or ES256."), *told]
    return [BEARERS.ok(f"the key set has {len(usable)} usable key{'s' * (len(usable) > 1)}"), *told]


async def look_at_clock(area: Area, url: str, ca_file: Path | None, proxies: Proxies) -> Sequence[Line]:
    """Compare our clock with the Date that a provider's address answers with, whatever else it says."""
    proxy = proxies.towards(url)
    tls = ssl.create_default_context(cafile=ca_file)
    try:
        async with httpx.AsyncClient(
            timeout=_TIMEOUT, verify=tls, trust_env=False, proxy=proxy.url if proxy else None
        ) as http:
            answer = await http.get(url)
    except (httpx.HTTPError, OSError):  # told with the connection
        return []
    return [*_clock(area, url, answer)]


def _told_by(area: Area, whose: str, answer: httpx.Response) -> Iterator[Line]:
    """Say what an answer tells beside its content: how long the certificate lasts, and the time."""
    seen = answer.extensions["network_stream"].get_extra_info("ssl_object")
    if seen is not None:
        yield expiry_line(area, whose, expiry(seen), "Ask whoever runs it to renew it.")
    yield from _clock(area, whose, answer)


def _clock(area: Area, whose: str, answer: httpx.Response) -> Iterator[Line]:
    try:
        theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):  # it tells no time
        return
    yield clock_line(area, whose, theirs, time.time())
