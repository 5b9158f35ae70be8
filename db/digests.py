"""What the database knows a secret by: nobody who reads it there can use it."""

import hashlib


def digest(secret: str) -> bytes:
    """Give SHA-256 over the UTF-8 bytes. Secrets are random and long, so a salt would add nothing."""
    return hashlib.sha256(secret.encode()).digest()
