"""What the doctor says of each thing it checks: sentences, lines, certificates and clocks, and checks side by side."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from itertools import chain
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from cryptography import x509

from push.http2.pool import DEFAULT_TIMEOUTS, Pool
from push.http2.proxy import Proxies, connect

WITHIN = 20.0  # seconds for one check; the calls in it have shorter limits of their own


class Finding(Enum):
    """What the doctor says, and what to do about it, as format strings."""

    # Of a check itself
    TIMED_OUT = (
        "{what}: no answer within {within:g} s",
        "Check whether this machine can reach it, and how busy it is.",
    )
    BROKEN = (
        "{what}: could not be checked ({error})",
        "Run the doctor again. If this stays, it is a bug of the doctor.",
    )
    # Clocks and certificates
    CLOCK_OK = ("the clock agrees with that of {whose}", "")
    CLOCK = (
        "this machine's clock is {ahead:.1f} s {side} that of {whose}",
        "Let both machines follow a time server (chrony, systemd-timesyncd).",
    )
    VALID = ("{whose}: certificate until {day}", "")
    EXPIRES = ("{whose}: certificate until {day}, for {left} days", "{renewal}")
    EXPIRED = ("{whose}: certificate expired on {day}", "{renewal}")
    NO_CERTIFICATE = ("{setting}: {file} holds no certificate ({error})", "Name a PEM file with certificates.")
    UNTRUSTED = ("{whose}: its certificate is not good: {error}", "{renewal}")
    # Settings
    SECTION_OK = ("{name}: present and consistent", "")
    SETTING = ("{error}", "Correct it. .env.example and docs/apps.md explain each setting.")
    NO_PROVIDER = (
        "no provider is configured, so no worker starts",
        "Set APNS_KEY_FILE, FCM_SERVICE_ACCOUNT_FILE or APPS_FILE (.env.example).",
    )
    PRESENTATION_OK = ("presentation file of the {app}: can be used", "")
    PRESENTATION = (
        "{error}",
        "Correct it (docs/presentation.md) and run `cli.py presentation check`. Running processes keep what they had.",
    )
    TOKENS_OF_OTHERS = (
        "{open}: tokens that the issuer made for other services are accepted, too",
        "Set them to the `aud` and `iss` of your tokens.",
    )
    KEY_FILE_OK = ("{app}: key file can be used", "")
    KEY_FILE = ("{app}: {error}", "Use the original file from Apple's or Google's console (.p8 or JSON).")
    KEY_FILE_OPEN = (
        "{app}: {file} can be read by everybody on this machine",
        "Run chmod 400, and let the user that runs Fastbell own the file.",
    )
    # PostgreSQL
    DATABASE_OK = ("PostgreSQL answers{through}", "")
    DATABASE = ("{error}", "Check that PostgreSQL runs, and that DATABASE_URL has its address, user and password.")
    POOLER = (
        "DATABASE_URL leads through a pooler that gives each transaction another connection (transaction mode)",
        "Use session mode (PgBouncer: pool_mode = session), or name PostgreSQL itself; docs/deployment.md, Poolers.",
    )
    MIGRATED = ("migrated to {newest}, the newest", "")
    NEVER_MIGRATED = ("the database was never migrated", "Run `cli.py migrate`, then restart workers and API.")
    OTHER_MIGRATION = (
        "the database is at migration {present}, not at {newest}",
        "Run `cli.py migrate`, then restart workers and API.",
    )
    NEWER_MIGRATION = (
        "a newer release has migrated the database to {present}; this one works with it",
        "Roll the newer release out, or stay with this one: docs/deployment.md, Upgrade.",
    )
    WORKERS = ("{workers} alive in the last {within:g} s", "")
    NO_WORKERS = ("no worker was alive in the last {within:g} s", "Start workers (`worker.py`), and read their logs.")
    # Temporal
    TEMPORAL_AWAY = (
        "cannot be reached, so nothing there was checked ({error})",
        "Check that the server runs. Set TEMPORAL_ADDRESS, and the TEMPORAL_TLS_* settings that it needs.",
    )
    NAMESPACE_OK = ("answers; namespace {name} exists", "")
    NO_NAMESPACE = (
        "there is no namespace {name}",
        "Create it (`temporal operator namespace create`), or set TEMPORAL_NAMESPACE to another one.",
    )
    ATTRIBUTE_OK = ("search attribute {name} exists", "")
    NO_ATTRIBUTE = (
        "search attribute {name} is missing, so no workflow can start",
        "temporal operator search-attribute create --name {name} --type Keyword (Temporal Cloud: its console).",
    )
    QUEUE_OK = ("task queue {name}: {workers}", "")
    NO_QUEUE = (
        "no worker polls task queue {name}",
        "Start workers (`worker.py`) with the settings of this provider, and read their logs.",
    )
    SCHEDULE_OK = ("schedule {name} exists", "")
    NO_SCHEDULE = ("schedule {name} is missing", "A worker creates it within a minute: start one, and read its log.")
    SCHEDULE_PAUSED = (
        "schedule {name} is paused",
        "temporal schedule toggle --unpause --schedule-id {name} --reason …",
    )
    RPC_FAILED = (
        "{what}: Temporal says {status}",
        "Check that the namespace exists, and that this client's key or certificate has access to it.",
    )
    # Key set
    KEYS_OK = ("the key set has {keys}", "")
    NO_KEYS = (
        "the key set has no key for {algorithms}",
        "Let the issuer sign with RS256 (2 048 bits or more) or ES256.",
    )
    KEY_SET_STATUS = ("the key set's address answers {status}", "{address}")
    KEY_SET_AWAY = ("the key set cannot be fetched ({error})", "{address}")
    NO_KEY_SET = ("no key set is at AUTH_JWKS_URL ({error})", "{address}")
    # Apple and Google
    KEY_OK = ("{name}: the key signs", "")
    IDS_OK = ("{name}: key id, team id and topic look like Apple's", "")
    IDS_ODD = (
        "{name}: {odd}: not in Apple's format",
        "Apple's ids have ten capital letters and digits. A topic is a bundle id such as com.example.app.",
    )
    CONNECTED = ("{where}: connects ({tls}, HTTP/2)", "")
    NO_CONNECTION = ("{where}: no connection ({error})", "{to_do}")
    NO_TLS = ("{where}: connects without TLS", "Use an https:// address.")
    NO_HTTP2 = (
        "{where}: does not speak HTTP/2 ({tls}, ALPN {protocol})",
        "Make the path there a plain tunnel. A proxy that opens TLS has to speak HTTP/2.",
    )
    PROBE_OK = ("{where}: the probe is refused as expected ({reason})", "")
    PROBE_ACCEPTED = ("{where}: the probe was accepted", "Check whether this address is the provider's.")
    REFUSED = ("{where}: {reason}: {meaning}", "{to_do}")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    REMINDER = "reminder"  # no command can check it


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One finding."""

    area: str
    level: Level
    found: str
    to_do: str | None = None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, counted by level."""

    healthy: bool
    ok: int
    warnings: int
    failures: int
    items: Sequence[ReportLine]


@dataclass(frozen=True, slots=True)
class Area:
    """Makes the lines of one area."""

    name: str

    def ok(self, finding: Finding, **fields: object) -> ReportLine:
        """Say that something is right."""
        return self._line(Level.OK, finding, fields)

    def warning(self, finding: Finding, **fields: object) -> ReportLine:
        """Say what works today, but not for long or not for all."""
        return self._line(Level.WARNING, finding, fields)

    def failure(self, finding: Finding, **fields: object) -> ReportLine:
        """Say what keeps reminders from phones."""
        return self._line(Level.FAILURE, finding, fields)

    def _line(self, level: Level, finding: Finding, fields: Mapping[str, object]) -> ReportLine:
        found, to_do = (text.format_map(fields) for text in finding.value)
        return ReportLine(self.name, level, found, to_do or None)


@dataclass(frozen=True, slots=True)
class Check:
    """One check. If it breaks, the others still run."""

    area: Area
    what: str
    run: Callable[[], Awaitable[Sequence[ReportLine]]]


async def lines_of(checks: Sequence[Check], within: float = WITHIN) -> list[ReportLine]:
    """Run all checks at once; the lines come in the order of the checks."""
    return list(chain.from_iterable(await asyncio.gather(*(_lines(check, within) for check in checks))))


async def _lines(check: Check, within: float) -> Sequence[ReportLine]:
    try:
        async with asyncio.timeout(within):
            return await check.run()
    except TimeoutError:
        return [check.area.failure(Finding.TIMED_OUT, what=check.what, within=within)]
    except Exception as error:  # noqa: BLE001 -- its text may hold a secret
        return [check.area.failure(Finding.BROKEN, what=check.what, error=type(error).__name__)]


_NOTICED = 2.0  # seconds; an HTTP date is up to one second old
_TOO_MUCH = 10.0  # seconds; the leeway of bearer tokens


def clock_line(area: Area, whose: str, theirs: float, asked_at: float, answered_at: float) -> ReportLine:
    """Compare two clocks, in UNIX seconds. Theirs was read between two instants of ours, which may lie far apart."""
    ahead = min(max(theirs, asked_at), answered_at) - theirs
    if abs(ahead) <= _NOTICED:
        return area.ok(Finding.CLOCK_OK, whose=whose)
    say = area.failure if abs(ahead) > _TOO_MUCH else area.warning
    return say(Finding.CLOCK, ahead=abs(ahead), side="ahead of" if ahead > 0 else "behind", whose=whose)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a TLS connection."""

    protocol: str | None  # chosen by ALPN
    tls: str
    expires_at: datetime  # of its certificate


async def connect_to(url: str, ca_file: Path | None, proxies: Proxies) -> Peer | None:
    """Connect to an https:// address and disconnect; raises OSError. None for http://, which has no TLS."""
    proxy, parts = proxies.towards(url), urlsplit(url)
    pool = Pool(url, ca_file=ca_file, connections=1, timeouts=DEFAULT_TIMEOUTS, proxy=proxy)
    async with asyncio.timeout(DEFAULT_TIMEOUTS.connect.total_seconds()):
        address = parts.hostname or "", parts.port or 443
        handshake = await connect(_Handshake, address, tls=pool.tls, proxy=proxy, ready=_done)
    return handshake.peer


async def _done(_: "_Handshake") -> None:
    """Wait for nothing: the handshake has shown the peer."""


class _Handshake(asyncio.Protocol):
    peer: Peer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.peer = Peer(tls.selected_alpn_protocol(), str(tls.version()), expiry(tls))
        cast(asyncio.Transport, transport).abort()


def expiry(tls: ssl.SSLObject | ssl.SSLSocket) -> datetime:
    """Read when the verified certificate of a peer expires."""
    certificate = tls.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


_SOON = timedelta(days=14)
_CONNECT_WITHIN = 5.0  # seconds
_RENEW_IT = "Ask its operator to renew it, or trust its authority."


def expiry_line(area: Area, whose: str, expires_at: datetime, renewal: str) -> ReportLine:
    """Say until when a certificate is valid; `renewal` says how to renew it."""
    left = expires_at - datetime.now(UTC)
    fields = {"whose": whose, "day": f"{expires_at:%Y-%m-%d}", "left": left.days, "renewal": renewal}
    if left < timedelta(0):
        return area.failure(Finding.EXPIRED, **fields)
    return area.warning(Finding.EXPIRES, **fields) if left < _SOON else area.ok(Finding.VALID, **fields)


async def peer_lines(area: Area, address: str, tls: ssl.SSLContext, name: str | None) -> list[ReportLine]:
    """Say until when a peer's certificate is valid; nothing if it cannot be reached, which another check reports."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            _, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname=name or host)
    except ssl.SSLCertVerificationError as error:
        return [area.failure(Finding.UNTRUSTED, whose=address, error=error.verify_message, renewal=_RENEW_IT)]
    except (OSError, ValueError):
        return []
    expires_at = expiry(writer.get_extra_info("ssl_object"))
    writer.transport.abort()
    return [expiry_line(area, address, expires_at, _RENEW_IT)]


def file_lines(area: Area, setting: str, file: Path) -> Iterator[ReportLine]:
    """Say until when the certificates of a PEM file are valid: the first to expire."""
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except (ValueError, OSError) as error:
        yield area.failure(Finding.NO_CERTIFICATE, setting=setting, file=file, error=type(error).__name__)
        return
    expires_at = min(each.not_valid_after_utc for each in certificates)
    yield expiry_line(area, setting, expires_at, "Put the renewed certificate into that file.")


def counted(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
