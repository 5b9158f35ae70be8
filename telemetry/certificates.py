"""When certificates expire: those in files that the settings name, and those that providers presented."""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificates
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_shown: dict[str, float] = {}


def note_shown(host: str, transport_ssl: ssl.SSLObject | None) -> None:
    """Note the certificate that a server presented on a new connection."""
    expires = (transport_ssl.getpeercert() or {}).get("notAfter") if transport_ssl else None
    if isinstance(expires, str):
        _shown[host] = ssl.cert_time_to_seconds(expires)


class CertificateExpiry(Collector):
    """Reads the files at each scrape, since they may be replaced."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Watch these files, by the settings that name them."""
        self._files = files

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give one value for each certificate; an unreadable file has none."""
        family = GaugeMetricFamily(
            "fastbell_certificate_expiry_timestamp_seconds",
            "When a certificate expires: the first one in a file, or the one that a provider's host presented.",
            labels=("name",),
        )
        for name, expires in {**dict(_shown), **self._in_files()}.items():
            family.add_metric((name,), expires)
        yield family

    def _in_files(self) -> dict[str, float]:
        expiries: dict[str, float] = {}
        for name, file in self._files.items():
            try:
                certificates = load_pem_x509_certificates(file.read_bytes())
            except (OSError, ValueError):
                continue
            expiries[name] = min(certificate.not_valid_after_utc.timestamp() for certificate in certificates)
        return expiries
