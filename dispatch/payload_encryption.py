"""Encrypts what Temporal stores of workflows and activities: AES-256-GCM with the keys of a file.

The file has one key per line, `NAME KEY`: a name of yours, and 32 random bytes in base64. The first key encrypts, all
of them decrypt. So a key is added below the first, then moved to the top once every process has it, and removed once
no history needs it. Ids of workflows, search attributes and failures are not encrypted; they hold ids and reasons.
"""

import base64
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import EncodingPayloadConverter, PayloadCodec

ENCODING = b"binary/encrypted"
_NONCE = 12  # bytes
_LOOK_EVERY = 5.0  # seconds
_NAME = re.compile(r"[!-~]{1,100}")

log = structlog.get_logger()


class UnusableKeys(ValueError):
    """The file of keys has a wrong content; the message says what is wrong, and quotes no key."""


class UnreadablePayload(ValueError):
    """A payload cannot be decrypted; the message names its key."""


@dataclass(frozen=True, slots=True)
class _Keys:
    newest: str
    ciphers: dict[str, AESGCM]


def read_keys(path: Path) -> _Keys:
    """Read a file of keys; raises UnusableKeys."""
    ciphers: dict[str, AESGCM] = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise UnusableKeys("it cannot be read as text") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, encoded = line.strip().partition(" ")
        if not _NAME.fullmatch(name) or name in ciphers:
            raise UnusableKeys(f"line {number} does not begin with a name of its own")
        try:
            key = base64.b64decode(encoded.strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise UnusableKeys(
                f"line {number} is not a name and 32 bytes in base64, as `openssl rand -base64 32` gives"
            )
        ciphers[name] = AESGCM(key)
    if not ciphers:
        raise UnusableKeys("it holds no key")
    return _Keys(next(iter(ciphers)), ciphers)


class WithoutKeys(EncodingPayloadConverter):
    """Says why an encrypted payload cannot be read by a process that has no keys; the SDK only names its encoding."""

    encoding = ENCODING.decode()

    def to_payload(self, value: object) -> Payload | None:
        """Leave values to the other converters."""

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> NoReturn:  # noqa: ARG002 -- the SDK's signature
        """Raise UnreadablePayload."""
        name = payload.metadata.get("encryption-key-id", b"").decode(errors="replace")
        raise UnreadablePayload(f"PAYLOAD_KEYS_FILE is not set in this process, and the key {name!r} encrypted this")


class PayloadEncryption(PayloadCodec):
    """Encrypts and decrypts payloads. A changed file is read again; one that became unusable changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = read_keys(path)
        self._stamp = self._stamped()
        self._looked_at = time.monotonic()

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt with the newest key."""
        self._look(_LOOK_EVERY)
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt what is encrypted, and return the rest as it is; raises UnreadablePayload."""
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        name, nonce = self._keys.newest, os.urandom(_NONCE)
        data = self._keys.ciphers[name].encrypt(nonce, payload.SerializeToString(), name.encode())
        return Payload(metadata={"encoding": ENCODING, "encryption-key-id": name.encode()}, data=nonce + data)

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        name = payload.metadata.get("encryption-key-id", b"").decode(errors="replace")
        if name not in self._keys.ciphers:
            self._look(0.0)
        if name not in self._keys.ciphers:
            raise UnreadablePayload(f"PAYLOAD_KEYS_FILE holds no key {name!r}, which encrypted this payload")
        try:
            data = self._keys.ciphers[name].decrypt(payload.data[:_NONCE], payload.data[_NONCE:], name.encode())
            return Payload.FromString(data)
        except (InvalidTag, ValueError, DecodeError):
            raise UnreadablePayload(f"the key {name!r} in PAYLOAD_KEYS_FILE does not fit this payload") from None

    def _look(self, pause: float) -> None:
        """Read the file again if it has changed, at most once in `pause` seconds."""
        if time.monotonic() - self._looked_at < pause:
            return
        self._looked_at = time.monotonic()
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
            log.info("payload keys read", newest=self._keys.newest, count=len(self._keys.ciphers))
        except UnusableKeys as error:
            log.error("payload keys unusable, the former ones stay", reason=str(error))  # noqa: TRY400 -- no traceback

    def _stamped(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return (0,)
        return found.st_ino, found.st_mtime_ns, found.st_size
