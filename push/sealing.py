"""Seals a push's text to the key of the phone it is for: HPKE (RFC 9180). How apps open it: docs/encryption.md.

https://www.rfc-editor.org/rfc/rfc9180
"""

import base64
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from domain.kinds import Kind
from domain.push import Push
from push.fitting import encoded

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)  # CryptoKit: Curve25519_SHA256_ChachaPoly
_PROBE = X25519PrivateKey.generate()
BLOCK = 128  # bytes; texts are padded to a multiple, since a length can give a text away


def sealed(push: Push, public_key: bytes) -> str:
    """Seal title and body, so that only the private key opens them and only in this push; base64."""
    content = encoded({"title": push.title, "body": push.body})
    padded = content.ljust(-(-len(content) // BLOCK) * BLOCK)  # JSON takes no notice of spaces at its end
    key = X25519PublicKey.from_public_bytes(public_key)
    return base64.b64encode(SUITE.encrypt(padded, key, binding(push.task_id, push.kind))).decode()


def binding(task_id: UUID, kind: Kind) -> bytes:
    """Make HPKE's `info`: the construction's version, and the push that a sealed text belongs to."""
    return f"fastbell/1/{task_id}/{kind.value}".encode()


def is_usable(public_key: bytes) -> bool:
    """Tell whether a key has the right size and no low order: what is sealed to such a point, everybody can open."""
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        return False
    return True
