"""Prepares a push's text: shortened to the provider's limit, or sealed (HPKE, RFC 9180)."""

import base64
import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from domain.kinds import Kind
from domain.push import Push

ELLIPSIS = "…"
_JOINER = "\u200d"
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)  # CryptoKit: Curve25519_SHA256_ChachaPoly
_PROBE = X25519PrivateKey.generate()
BLOCK = 128  # bytes; texts are padded to a multiple, since a length may reveal a text


def encoded(content: object) -> bytes:
    """Write JSON as the bytes that are sent: UTF-8; a lone surrogate becomes a question mark."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def fitted(push: Push, encode: Callable[[Push], bytes], limit: int) -> bytes:
    """Encode with as much of the body, then of the title, as `limit` bytes allow; all else is kept in full."""
    whole = encode(push)
    if len(whole) <= limit:
        return whole
    shorter = _longest(push.body, lambda text: encode(replace(push, body=text)), limit)
    if len(shorter) <= limit:
        return shorter
    return _longest(push.title, lambda text: encode(replace(push, title=text, body=ELLIPSIS)), limit)


def shortened(text: str, length: int) -> str:
    """Cut to at most `length` code points, never inside a visible character, and add an ellipsis."""
    while 0 < length < len(text) and not _ends_before(text, length):
        length -= 1
    return text[:length].rstrip() + ELLIPSIS


def _longest(text: str, encode: Callable[[str], bytes], limit: int) -> bytes:
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if len(encode(shortened(text, middle))) <= limit:
            fits = middle
        else:
            too_long = middle
    return encode(shortened(text, fits))


def _ends_before(text: str, at: int) -> bool:
    """Whether a new visible character begins at `at`; close to Unicode's annex 29."""
    before, after = text[at - 1], text[at]
    if _JOINER in {before, after} or unicodedata.category(after) in {"Mn", "Mc", "Me"}:
        return False
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":  # skin tones, tags of flags
        return False
    return not (_is_flag_half(after) and _flag_halves_before(text, at) % 2)


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flag_halves_before(text: str, at: int) -> int:
    start = at
    while start > 0 and _is_flag_half(text[start - 1]):
        start -= 1
    return at - start


def sealed(push: Push, public_key: bytes) -> str:
    """Seal title and body, so that only the private key opens them, and only in this push; base64."""
    content = encoded({"title": push.title, "body": push.body})
    padded = content.ljust(-(-len(content) // BLOCK) * BLOCK)  # JSON ignores spaces at its end
    key = X25519PublicKey.from_public_bytes(public_key)
    return base64.b64encode(SUITE.encrypt(padded, key, binding(push.task_id, push.kind))).decode()


def binding(task_id: UUID, kind: Kind) -> bytes:
    """Make HPKE's `info`: the version, and the push that a sealed text belongs to."""
    return f"fastbell/1/{task_id}/{kind.value}".encode()


def is_usable(public_key: bytes) -> bool:
    """Whether a key has the right size and no low order: anybody can open what is sealed to such a point."""
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        return False
    return True
