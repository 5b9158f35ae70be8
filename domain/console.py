"""The console's credentials: how a one-time code looks, how long a sign-in lasts."""

from datetime import timedelta

CODE_LIFETIME = timedelta(minutes=10)
LONGEST_SIGN_IN = timedelta(hours=8)
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's Base32: nothing in it looks like another
_LENGTH = 16  # characters, so 80 bits
_GROUP = 4
_MISREAD = str.maketrans({"O": "0", "I": "1", "L": "1"})


def code_from(randomness: bytes) -> str:
    """Write 10 random bytes as a code that a person can type."""
    number = int.from_bytes(randomness)
    letters = "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))
    return "-".join(letters[start : start + _GROUP] for start in range(0, _LENGTH, _GROUP))


def read_code(typed: str) -> str | None:
    """Read a code however it was typed; None for what cannot be one."""
    letters = "".join(typed.upper().replace("-", " ").split()).translate(_MISREAD)
    return letters if len(letters) == _LENGTH and set(letters) <= set(_ALPHABET) else None
