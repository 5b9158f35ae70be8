"""Shortens a push's text until the bytes on the wire fit the provider's limit."""

from collections.abc import Callable

ELLIPSIS = "…"


def fitted(text: str, encode: Callable[[str], bytes], limit: int) -> bytes:
    """Encode with as much of `text` as `limit` bytes allow, cut between characters; too long a rest stays too long."""
    whole = encode(text)
    if len(whole) <= limit:
        return whole
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if len(encode(text[:middle].rstrip() + ELLIPSIS)) <= limit:
            fits = middle
        else:
            too_long = middle
    return encode(text[:fits].rstrip() + ELLIPSIS)
