"""Shortens a push's text until the bytes on the wire fit the provider's limit."""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace

from domain.push import Push

ELLIPSIS = "…"
_JOINER = "\u200d"


def encoded(content: object) -> bytes:
    """Write JSON as the bytes that are sent, and so measured: UTF-8; what that cannot hold becomes a question mark."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def fitted(push: Push, encode: Callable[[Push], bytes], limit: int) -> bytes:
    """Encode with as much of the body, then of the title, as `limit` bytes allow; too long a rest stays too long."""
    whole = encode(push)
    if len(whole) <= limit:
        return whole
    found = _longest(push.body, lambda text: encode(replace(push, body=text)), limit)
    if len(found) <= limit:
        return found
    return _longest(push.title, lambda text: encode(replace(push, title=text, body=ELLIPSIS)), limit)


def shortened(text: str, length: int) -> str:
    """Cut to at most `length` characters, between two that a person would tell apart, and say so with an ellipsis."""
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
    """Tell whether a new character, as a person sees it, begins at `at`; near enough to Unicode's annex 29."""
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
