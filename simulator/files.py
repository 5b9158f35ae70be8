"""Writing the simulator's files: whole or not at all, and secrets for their owner only."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def write_secret(path: Path, content: bytes) -> None:
    """Write with mode 600."""
    _write(path, content, 0o600)


def write_public(path: Path, content: bytes) -> None:
    """Write with mode 644."""
    _write(path, content, 0o644)


def private_pem(key: PrivateKeyTypes) -> bytes:
    """PKCS8 PEM, the form of Apple's .p8 files."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    unfinished.replace(path)
