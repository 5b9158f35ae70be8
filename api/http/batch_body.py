"""Bodies of batches: an item that cannot be read fails alone, as long as it is certain where it ends.

It is certain where the structure is JSON: strings end, brackets pair, commas and colons are in their places. Words and
bytes in between are the trouble of their item, and so are its depth, a number of too many digits, and a field that it
has twice.
"""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import WrapValidator

from api.http.problems import Detail
from domain.problems import InvalidField


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """An item that cannot be read, and why not."""

    detail: str
    members: Mapping[str, str] = field(repr=False)  # its own strings as they were sent, by name

    def text(self, name: str) -> str:
        """Give one of its texts, such as its id; empty if there is none."""
        try:
            return str(json.loads(self.members.get(f'"{name}"', '""'), strict=False))
        except ValueError:
            return ""


class UnreadBody:
    """The items of a body that is not JSON as a batch has to have it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def items(self, most: int) -> list[object]:
        """Cut the body into items, beside other requests; raises InvalidField where it is not certain how."""
        return await asyncio.to_thread(_items, self._body, most)


def _pass_unread(items: object, check: Callable[[object], object]) -> object:
    return items if isinstance(items, UnreadBody) else check(items)


UNREAD_PASSES = WrapValidator(_pass_unread)  # of the field `items`


class BatchRoute(APIRoute):
    """A route for batches. Where a body cannot be read as a whole, its `items` are an `UnreadBody`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Handle requests that read their body so."""
        handle = super().get_route_handler()

        async def handle_batch(request: Request) -> Response:
            return await handle(_BatchRequest(request.scope, request.receive))

        return handle_batch


class _BatchRequest(Request):
    async def json(self) -> object:
        """Read the body. What takes longer is left for when the caller is known."""
        body = await self.body()
        try:
            return _STRICT.decode(body.decode(json.detect_encoding(body)))
        except (ValueError, RecursionError):
            return {"items": UnreadBody(body)}


class _Odd(ValueError):
    """Python's parser would read it."""


class _Unclear(Exception):
    """It is not certain where an item ends."""


def _distinct(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) < len(members):
        raise _Odd(Detail.FIELD_TWICE)
    return found


def _refuse(_: str) -> NoReturn:
    raise _Odd(Detail.ITEM_NOT_JSON)  # NaN, Infinity


_STRICT = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse)
_HEAD = re.compile(r'[ \t\n\r]*+\{[ \t\n\r]*+"items"[ \t\n\r]*+:[ \t\n\r]*+\[[ \t\n\r]*+')
_END_OF_ITEM = re.compile(r"[ \t\n\r]*+(?:,[ \t\n\r]*+|(\]))")
_TAIL = re.compile(r"[ \t\n\r]*+\}[ \t\n\r]*+")
_TOKEN = re.compile(  # brackets that follow each other are one, since there may be millions
    r'[ \t\n\r]*+("(?:[^"\\]|\\.)*+"|\[++|\]++|\}++|[{,:]|[^ \t\n\r\[\]{},:"]++)', re.DOTALL
)
_MAX_TOKENS = 100_000  # of all unreadable items of a body, which takes a tenth of a second
_NOT_UTF_8 = re.compile(r"[\ud800-\udfff]")  # `surrogateescape` writes such bytes so


def _items(body: bytes, most: int) -> list[object]:
    try:
        text = body.decode(json.detect_encoding(body), "surrogateescape")
    except ValueError:  # of another encoding
        raise InvalidField("body", Detail.BATCH_NOT_JSON) from None
    head = _HEAD.match(text)
    if head is None:
        raise InvalidField("body", Detail.BATCH_NOT_JSON)
    at, items, is_last, tokens = head.end(), list[object](), False, count(1)
    while not is_last:
        if len(items) == most:
            raise InvalidField("items", Detail.TOO_MANY_ITEMS.format(most=most))
        try:
            item, at = _item(text, at, tokens)
            end = _END_OF_ITEM.match(text, at)
        except _Unclear:
            end = None
        if end is None:
            raise InvalidField(f"items[{len(items)}]", Detail.ITEM_UNCLEAR)
        items.append(item)
        at, is_last = end.end(), end[1] is not None
    if not _TAIL.fullmatch(text, at):
        raise InvalidField("body", Detail.BATCH_NOT_JSON)
    return items


def _item(text: str, at: int, tokens: Iterator[int]) -> tuple[object, int]:
    """Read the item that begins here; gives it, and where it ends."""
    try:
        item, end = _STRICT.raw_decode(text, at)
    except RecursionError:
        detail = Detail.ITEM_TOO_DEEP
    except (_Odd, json.JSONDecodeError) as error:
        detail = Detail(str(error)) if isinstance(error, _Odd) else Detail.ITEM_NOT_JSON
    except ValueError:
        detail = Detail.NUMBER_TOO_LONG
    else:
        if _END_OF_ITEM.match(text, end) and not _NOT_UTF_8.search(text, at, end):
            return item, end
        detail = Detail.ITEM_NOT_JSON
    end, members = _structure(text, at, tokens)
    return UnreadableItem(Detail.ITEM_NOT_UTF_8 if _NOT_UTF_8.search(text, at, end) else detail, members), end


_CLOSERS = {"[": "]", "{": "}"}
_VALUE = {"[": "item or end", "{": "name or end", '"': "next", "word": "next"}
_STEPS: Mapping[str, Mapping[str, str]] = {  # by what is expected: which tokens may come, and what is expected then
    "value": _VALUE,
    "item or end": _VALUE | {"]": "next"},
    "name or end": {'"': "colon", "}": "next"},
    "name": {'"': "colon"},
    "colon": {":": "value"},
    "next": {",": "value", "]": "next", "}": "next"},
}


def _structure(text: str, at: int, tokens: Iterator[int]) -> tuple[int, dict[str, str]]:
    """Find where a value ends by its structure; gives that, and its own strings by name. Raises _Unclear."""
    closers: list[str] = []
    members: dict[str, str] = {}
    expected, name = "value", ""
    while expected != "next" or closers:
        found = _TOKEN.match(text, at)
        if found is None or next(tokens) > _MAX_TOKENS:
            raise _Unclear
        token, at = found[1], found.end()
        kind = token[0] if token[0] in '[]{},:"' else "word"
        step = _STEPS[expected].get(kind)
        if step is None:
            raise _Unclear
        if kind in "]}":
            closed = min(len(token), len(closers))  # what is left closes what is around
            if closers[-closed:] != [kind] * closed:
                raise _Unclear
            del closers[-closed:]
            at -= len(token) - closed
        elif kind in _CLOSERS:
            closers += [_CLOSERS[kind]] * len(token)
        elif kind == "," and closers[-1] == "}":
            step = "name"
        elif step == "colon":
            name = token
        elif kind == '"' and closers == ["}"]:
            members[name] = token
        expected = step
    return at, members
