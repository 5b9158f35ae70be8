"""Reads files of credentials. An error message continues the words *cannot be used:*."""

import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

SHORTEST_RSA_KEY = 2048  # bits
_PLAIN = {"127.0.0.1", "localhost"}  # hosts that may be called without TLS
_WORD = re.compile(r"[!-~]{1,1000}")
_FORMS = {
    "project_id": re.compile(r"[A-Za-z0-9._:-]{1,200}"),  # part of a path
    "client_email": _WORD,
    "token_uri": _WORD,
}


class UnusableCredential(ValueError):
    """A file has a wrong content; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account of one Firebase project."""

    project_id: str
    client_email: str
    private_key_id: str | None
    token_uri: str  # where access tokens are fetched
    private_key: RSAPrivateKey = field(repr=False)


def apns_key(content: bytes) -> str:
    """Read Apple's .p8 file; raises UnusableCredential."""
    key = _private_key(content, "it holds")
    if not (isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)):
        raise UnusableCredential("its key is not of the curve P-256, as Apple's are")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UnusableCredential("there is more in it than text") from None


def service_account(content: bytes) -> ServiceAccount:
    """Read Google's JSON file; raises UnusableCredential."""
    try:
        account = json.loads(content)
    except (ValueError, RecursionError):
        raise UnusableCredential("it is not JSON") from None
    if not isinstance(account, dict):
        raise UnusableCredential("it holds no JSON object, as a service account's file does")
    if account.get("type") != "service_account":
        raise UnusableCredential("its type is not service_account")
    texts = {name: _text(account, name) for name in _FORMS}
    key_id = _text(account, "private_key_id") if account.get("private_key_id") else None
    if not _is_callable(texts["token_uri"]):
        raise UnusableCredential("its token_uri is not an https:// address")
    pem = account.get("private_key")
    if not isinstance(pem, str):
        raise UnusableCredential("it has no private_key")
    key = _private_key(pem.encode(errors="replace"), "its private_key holds")
    if not isinstance(key, RSAPrivateKey):
        raise UnusableCredential("its private_key is not an RSA key, as Google's are")
    if key.key_size < SHORTEST_RSA_KEY:
        raise UnusableCredential(f"its private_key has fewer than {SHORTEST_RSA_KEY} bits")
    return ServiceAccount(**texts, private_key_id=key_id, private_key=key)


def _is_callable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_secret = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _PLAIN)
        return bool(parts.hostname) and is_secret and parts.port != 0
    except ValueError:  # unmatched brackets, or no valid port
        return False


def _text(account: dict[str, object], name: str) -> str:
    value = account.get(name)
    if value is None or value == "":
        raise UnusableCredential(f"it has no {name}")
    form = _FORMS.get(name, _WORD)
    if not (isinstance(value, str) and form.fullmatch(value)):
        raise UnusableCredential(f"its {name} has not the form of one")
    return value


def _private_key(pem: bytes, where: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableCredential(f"{where} no private key in PEM form without a password") from None
