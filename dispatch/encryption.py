"""TLS to Temporal: what is wrong with its settings, before the first connection, and why a connection fails, in words.

The SDK would report a wrong file like a server that is away, and try again for ever.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from settings.environment import ConfigError

_TLS = "TEMPORAL_TLS"
_AUTHORITY = "TEMPORAL_TLS_SERVER_CA_CERT_PATH"
_SERVER_NAME = "TEMPORAL_TLS_SERVER_NAME"
_CERTIFICATE = "TEMPORAL_TLS_CLIENT_CERT_PATH"
_KEY = "TEMPORAL_TLS_CLIENT_KEY_PATH"
_API_KEY = "TEMPORAL_API_KEY"
_BOOLEANS = {"true", "false", "1", "0"}

_WHY = {  # a part of what the SDK's core says, which also holds addresses -> what it means
    "InvalidContentType": f"the server does not speak TLS; {_TLS} and {_AUTHORITY} ask for it",
    "UnknownIssuer": f"the server's certificate is of an authority that is not trusted; {_AUTHORITY} names it",
    "NotValidForName": f"the server's certificate is for another name; {_SERVER_NAME} says which",
    "InvalidCertificate(Expired": "the server's certificate has expired",
    "InvalidCertificate": "the server's certificate is not valid",
    "AlertReceived": f"the server refuses the certificate of this client ({_CERTIFICATE})",
    "after connection": f"the server hangs up: it asks for TLS, or for another certificate in {_CERTIFICATE}",
    "ConnectionRefused": "nobody listens at TEMPORAL_ADDRESS",
    "dns error": "the host of TEMPORAL_ADDRESS is not known",
}


def check_encryption(settings: Mapping[str, str]) -> None:
    """Raise ConfigError for settings of TLS, or files that they name, that cannot be used."""
    if settings.get(_TLS, "true").lower() not in _BOOLEANS:
        raise ConfigError(f"{_TLS} must be true or false.")
    if not re.fullmatch(r"[\w.:-]+", settings.get(_SERVER_NAME, "name"), re.ASCII):
        raise ConfigError(f"{_SERVER_NAME} must be the name of a host.")
    if not re.fullmatch(r"[!-~]+", settings.get(_API_KEY, "key")):
        raise ConfigError(f"{_API_KEY} must be one word of ASCII characters, without blanks and line breaks.")
    if _AUTHORITY in settings:
        _certificate(settings, _AUTHORITY)
    if (_CERTIFICATE in settings) is not (_KEY in settings):
        raise ConfigError(f"{_CERTIFICATE} and {_KEY} belong together: set both, or neither.")
    if _CERTIFICATE in settings and _certificate(settings, _CERTIFICATE) != _public_key(settings):
        raise ConfigError(f"{_KEY} names the key of another certificate than {_CERTIFICATE}.")


def why(error: Exception) -> str:
    """Say why a connection failed, without what the error may repeat of settings."""
    text = str(error)
    return next((meaning for part, meaning in _WHY.items() if part in text), type(error).__name__)


def _certificate(settings: Mapping[str, str], name: str) -> bytes:
    """Read the first certificate of a file; gives its public key."""
    content = _content(settings, name)
    try:
        [first, *_] = x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ConfigError(f"{name} names a file without certificates in PEM form: {settings[name]}.") from None
    return first.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public_key(settings: Mapping[str, str]) -> bytes:
    content = _content(settings, _KEY)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        what = "a private key in PEM form that needs no password"
        raise ConfigError(f"{_KEY} names a file without {what}: {settings[_KEY]}.") from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _content(settings: Mapping[str, str], name: str) -> bytes:
    try:
        return Path(settings[name]).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} names a file that cannot be read: {error.strerror}: {settings[name]}.") from None
