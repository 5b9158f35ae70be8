"""How much of a list one answer holds: so many items, and so many bytes."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import TypeAdapter

LARGEST_PAGE = 1024 * 1024  # bytes; a single item may be larger

T = TypeVar("T")


def cut(found: Sequence[T], limit: int, kind: TypeAdapter[T]) -> tuple[list[T], bool]:
    """Cut a list, of which one item more than `limit` was asked for; tells whether there are more.

    What is left out for its size is the start of the next page.
    """
    size = 0
    for count, item in enumerate(found[:limit]):
        size += len(kind.dump_json(item))
        if size > LARGEST_PAGE and count:
            return list(found[:count]), True
    return list(found[:limit]), len(found) > limit
