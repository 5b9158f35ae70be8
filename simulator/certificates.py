"""The simulator's own certificate authority, and the certificate its listeners show."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509

from simulator.files import write_public, write_secret

_SERVER_LIFETIME = datetime.timedelta(days=397)
_RENEW_BEFORE = datetime.timedelta(days=7)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: the authority that clients trust, and the servers' certificate and key."""

    authority: Path
    certificate: Path
    key: Path


def certificate_files(directory: Path) -> CertificateFiles:
    """Reuse the files in `directory` while they are valid; make them otherwise."""
    files = CertificateFiles(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    authority_key = directory / "ca.key"
    if not (_is_valid(files.authority) and authority_key.is_file()):
        authority = trustme.CA(organization_name="Fastbell simulator")
        write_secret(authority_key, authority.private_key_pem.bytes())
        write_public(files.authority, authority.cert_pem.bytes())
        files.certificate.unlink(missing_ok=True)
    if not (_is_valid(files.certificate) and files.key.is_file()):
        authority = trustme.CA.from_pem(files.authority.read_bytes(), authority_key.read_bytes())
        until = datetime.datetime.now(datetime.UTC) + _SERVER_LIFETIME
        server = authority.issue_cert("localhost", "127.0.0.1", not_after=until)
        write_secret(files.key, server.private_key_pem.bytes())
        write_public(files.certificate, b"".join(each.bytes() for each in server.cert_chain_pems))
    return files


def _is_valid(path: Path) -> bool:
    if not path.is_file():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.not_valid_after_utc - _RENEW_BEFORE > datetime.datetime.now(datetime.UTC)
