"""What the doctor says of each thing it looks at: lines, certificates and clocks, and how it looks at many at once."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from cryptography import x509

from push.http2.pool import DEFAULT_TIMEOUTS, Pool
from push.http2.proxy import Proxies, connect

WITHIN = 20.0  # seconds for one check; the calls in it have shorter limits of their own


class Level(StrEnum):
    """How it stands."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    REMINDER = "reminder"  # no command can see it


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One thing."""

    area: str
    level: Level
    found: str
    to_do: str | None = None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found, and how much of each kind."""

    healthy: bool
    ok: int
    warnings: int
    failures: int
    items: Sequence[ReportLine]


@dataclass(frozen=True, slots=True)
class Area:
    """Makes the lines of one area."""

    name: str

    def ok(self, found: str) -> ReportLine:
        """Say that a thing is as it should be."""
        return ReportLine(self.name, Level.OK, found)

    def warning(self, found: str, to_do: str) -> ReportLine:
        """Say what works today and will not tomorrow, or not for all."""
        return ReportLine(self.name, Level.WARNING, found, to_do)

    def failure(self, found: str, to_do: str) -> ReportLine:
        """Say what keeps reminders from their phones."""
        return ReportLine(self.name, Level.FAILURE, found, to_do)


@dataclass(frozen=True, slots=True)
class Check:
    """One look; whatever ails it hides no other."""

    area: Area
    what: str
    look: Callable[[], Awaitable[Sequence[ReportLine]]]


async def lines_of(checks: Sequence[Check], within: float = WITHIN) -> list[ReportLine]:
    """Look at all at once; the lines come in the order of the checks."""
    return list(chain.from_iterable(await asyncio.gather(*(_lines(check, within) for check in checks))))


async def _lines(check: Check, within: float) -> Sequence[ReportLine]:
    try:
        async with asyncio.timeout(within):
            return await check.look()
    except TimeoutError:
        found = f"{check.what}: no answer within {within:g} s"
        return [check.area.failure(found, "See whether it can be reached from this machine, and how busy it is.")]
    except Exception as error:  # noqa: BLE001 -- its text may hold a secret
        found = f"{check.what}: could not be looked at ({type(error).__name__})"
        return [check.area.failure(found, "Run the doctor again; if this stays, it is a bug of the doctor.")]


_NOTICED = 2.0  # seconds; an HTTP date is up to one second old

_TOO_MUCH = 10.0  # seconds; bearer tokens have this leeway

_SET_THE_CLOCK = "Let this machine and that one follow a time server (chrony, systemd-timesyncd)."


def clock_line(area: Area, whose: str, theirs: float, ours: float) -> ReportLine:
    """Compare two clocks, in UNIX seconds."""
    ahead = ours - theirs
    found = f"this machine's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} that of {whose}"
    if abs(ahead) > _TOO_MUCH:
        return area.failure(found, _SET_THE_CLOCK)
    if abs(ahead) > _NOTICED:
        return area.warning(found, _SET_THE_CLOCK)
    return area.ok(f"the clock agrees with that of {whose}")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who answered."""

    protocol: str | None  # chosen by ALPN
    tls: str
    expires_at: datetime  # of its certificate


async def look(url: str, ca_file: Path | None, proxies: Proxies) -> Peer | None:
    """Connect to an https:// address and hang up; raises OSError. None for http://, which has no TLS."""
    proxy, parts = proxies.towards(url), urlsplit(url)
    pool = Pool(url, ca_file=ca_file, connections=1, timeouts=DEFAULT_TIMEOUTS, proxy=proxy)
    async with asyncio.timeout(DEFAULT_TIMEOUTS.connect.total_seconds()):
        address = parts.hostname or "", parts.port or 443
        seen = await connect(_Seeing, address, tls=pool.tls, proxy=proxy, ready=_seen)
    return seen.peer


async def _seen(_: "_Seeing") -> None:
    """Wait for no more: who answers has been seen with the handshake."""


class _Seeing(asyncio.Protocol):
    peer: Peer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        seen: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if seen is not None:
            self.peer = Peer(seen.selected_alpn_protocol(), str(seen.version()), expiry(seen))
        cast(asyncio.Transport, transport).abort()


def expiry(seen: ssl.SSLObject | ssl.SSLSocket) -> datetime:
    """Read when the certificate of a peer expires, which was verified."""
    certificate = seen.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


_SOON = timedelta(days=14)

_CONNECT_WITHIN = 5.0  # seconds

_RENEW_IT = "Let whoever runs it renew it, or trust its authority."


def expiry_line(area: Area, whose: str, expires_at: datetime, to_do: str) -> ReportLine:
    """Say how long a certificate lasts."""
    left = expires_at - datetime.now(UTC)
    found = f"{whose}: certificate until {expires_at:%Y-%m-%d}"
    if left < timedelta(0):
        return area.failure(f"{whose}: certificate expired on {expires_at:%Y-%m-%d}", to_do)
    return area.warning(f"{found}, for {left.days} days", to_do) if left < _SOON else area.ok(found)


async def peer_lines(area: Area, address: str, tls: ssl.SSLContext, name: str | None) -> list[ReportLine]:
    """Say how long the certificate of a peer lasts; nothing of one that cannot be reached, which is told elsewhere."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            _, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname=name or host)
    except ssl.SSLCertVerificationError as error:
        return [area.failure(f"{address}: its certificate is not good: {error.verify_message}", _RENEW_IT)]
    except (OSError, ValueError):
        return []
    expires_at = expiry(writer.get_extra_info("ssl_object"))
    writer.transport.abort()
    return [expiry_line(area, address, expires_at, _RENEW_IT)]


def file_lines(area: Area, setting: str, file: Path) -> Iterator[ReportLine]:
    """Say how long the certificates of a PEM file last: the first of them to expire."""
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except (ValueError, OSError) as error:
        found = f"{setting}: {file} holds no certificate ({type(error).__name__})"
        yield area.failure(found, "Name a PEM file of certificates.")
        return
    expires_at = min(each.not_valid_after_utc for each in certificates)
    yield expiry_line(area, setting, expires_at, "Put the renewed certificate into that file.")
