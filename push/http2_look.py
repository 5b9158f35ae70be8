"""One look at who answers at a provider's address, over the same way as the calls: its TLS and its certificate."""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from push.http2_pool import DEFAULT_TIMEOUTS, Pool
from push.http2_proxy import Proxies, connect


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
