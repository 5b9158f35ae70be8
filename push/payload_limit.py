"""Prepares a push's text: shortened to the provider's limit, or sealed (HPKE, RFC 9180)."""

import base64
import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import regex
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from domain.kinds import Kind
from domain.push import Push

ELLIPSIS = "…"
_CLUSTER = regex.compile(r"\X")  # what a person sees as one character: Unicode's annex 29
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)  # CryptoKit: Curve25519_SHA256_ChachaPoly
_PROBE = X25519PrivateKey.generate()
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # making one takes as long as a small payload
BLOCK = 128  # bytes; texts are padded to a multiple, since a length may reveal a text


def encoded(content: object) -> bytes:
    """Write JSON as the bytes that are sent: UTF-8; a lone surrogate becomes a question mark."""
    return _JSON.encode(content).encode(errors="replace")


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
    """Cut to at most `length` code points, never inside a grapheme cluster, and add an ellipsis."""
    ends = _ends(text)
    return _cut(text, ends[bisect_right(ends, length) - 1])


def _longest(text: str, encode: Callable[[str], bytes], limit: int) -> bytes:
    ends = _ends(text)
    fits, too_long = 0, len(ends)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if len(encode(_cut(text, ends[middle]))) <= limit:
            fits = middle
        else:
            too_long = middle
    return encode(_cut(text, ends[fits]))


def _ends(text: str) -> list[int]:
    """List where a cut may fall."""
    return [0, *(each.end() for each in _CLUSTER.finditer(text))]


def _cut(text: str, end: int) -> str:
    return text[:end].rstrip() + ELLIPSIS


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
