"""The doctor's look at certificates: of authorities, of ourselves, of whom we connect to."""

import asyncio
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from commands.doctor_lines import Area, Line
from push.http2_look import expiry

_SOON = timedelta(days=14)
_CONNECT_WITHIN = 5.0  # seconds
_TO_DO = "Let whoever runs it renew it, or trust its authority."


def expiry_line(area: Area, whose: str, expires_at: datetime, to_do: str) -> Line:
    """Say how long a certificate lasts."""
    left = expires_at - datetime.now(UTC)
    found = f"{whose}: certificate until {expires_at:%Y-%m-%d}"
    if left < timedelta(0):
        return area.failure(f"{whose}: certificate expired on {expires_at:%Y-%m-%d}", to_do)
    return area.warning(f"{found}, for {left.days} days", to_do) if left < _SOON else area.ok(found)


async def peer_lines(area: Area, address: str, tls: ssl.SSLContext, name: str | None) -> list[Line]:
    """Say how long the certificate of a peer lasts; nothing of one that cannot be reached, which is told elsewhere."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            _, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname=name or host)
    except ssl.SSLCertVerificationError as error:
        return [area.failure(f"{address}: its certificate is not good: {error.verify_message}", _TO_DO)]
    except (OSError, ValueError):
        return []
    expires_at = expiry(writer.get_extra_info("ssl_object"))
    writer.transport.abort()
    return [expiry_line(area, address, expires_at, _TO_DO)]


def file_lines(area: Area, setting: str, file: Path) -> Iterator[Line]:
    """Say how long the certificates of a PEM file last: the first of them to expire."""
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except (ValueError, OSError) as error:
        found = f"{setting}: {file} holds no certificate ({type(error).__name__})"
        yield area.failure(found, "Name a PEM file of certificates.")
        return
    expires_at = min(each.not_valid_after_utc for each in certificates)
    yield expiry_line(area, setting, expires_at, "Put the renewed certificate into that file.")
