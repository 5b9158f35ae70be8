"""HPACK at the simulator's speed: the hpack package's tables, with a byte-wise Huffman decoder and no response table.

Decoding takes most of a push's time in the package itself (a nibble per step); this takes a third of that.
"""

from collections.abc import Iterable
from functools import cache
from typing import cast

from hpack.exceptions import HPACKDecodingError, InvalidTableSizeError, OversizedHeaderListError
from hpack.hpack import Decoder, Encoder, encode_integer
from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE
from hpack.struct import HeaderTuple

_Pair = tuple[bytes | str, bytes | str]
_MarkedPair = tuple[bytes | str, bytes | str, bool | None]
_Headers = Iterable[HeaderTuple | _Pair | _MarkedPair] | dict[bytes | str, bytes | str]

_STATIC_STATUSES = {b"200": 8, b"204": 9, b"206": 10, b"304": 11, b"400": 12, b"404": 13, b"500": 14}
_ENTRY_OVERHEAD = 32  # RFC 7541, section 4.1
_LARGEST_INTEGER = 2**28

# A state of hpack's automaton and one byte: the next state, what it emits, whether the text may end here.
_STEPS: dict[int, tuple[int, bytes, int]] = {}


class RequestDecoder(Decoder):
    """Reads what clients send."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:  # noqa: ARG002 (always raw here)
        """Decode one header block into pairs of bytes."""
        headers: list[tuple[bytes, bytes]] = []
        table = self.header_table
        position = size = 0
        end = len(data)
        while position < end:
            first = data[position]
            if first & 0x80:
                index, position = _integer(data, position, 0x7F)
                header = table.get_by_index(index)
            elif first & 0x60 == 0x20:
                self._resize(data, position, is_first=not headers)
                _, position = _integer(data, position, 0x1F)
                continue
            else:
                is_indexed = first & 0x40
                index, position = _integer(data, position, 0x3F if is_indexed else 0x0F)
                if index:
                    name = table.get_by_index(index)[0]
                else:
                    name, position = _text(data, position)
                value, position = _text(data, position)
                header = (name, value)
                if is_indexed:
                    table.add(name, value)
            headers.append(header)
            size += len(header[0]) + len(header[1]) + _ENTRY_OVERHEAD
        if size > self.max_header_list_size:
            raise OversizedHeaderListError(f"a header list of {size} bytes")
        if self.header_table_size > self.max_allowed_table_size:
            raise InvalidTableSizeError("the encoder did not shrink its table")
        return cast("list[HeaderTuple]", headers)

    def _resize(self, data: bytes, position: int, *, is_first: bool) -> None:
        size, _ = _integer(data, position, 0x1F)
        if not is_first or size > self.max_allowed_table_size:
            raise InvalidTableSizeError("table size update too large, or not at the start of the block")
        self.header_table_size = size


class ResponseEncoder(Encoder):
    """Writes every header as it is: nothing a response says is said again."""

    def encode(
        self,
        headers: Iterable[HeaderTuple | _Pair | _MarkedPair] | dict[bytes | str, bytes | str],
        huffman: bool = True,
    ) -> bytes:
        """Encode one header block; a changed table size has to be announced the package's way."""
        if self.table_size_changes:
            return super().encode(headers, huffman)
        block = bytearray()
        for name, value in cast("Iterable[tuple[bytes, bytes]]", headers):
            index = _STATIC_STATUSES.get(value) if name == b":status" else None
            if index is not None:
                block.append(0x80 | index)
                continue
            block += _literal_name(name)
            block += encode_integer(len(value), 7)
            block += value
        return bytes(block)


@cache
def _literal_name(name: bytes) -> bytes:
    return b"\x00" + bytes(encode_integer(len(name), 7)) + name


def _integer(data: bytes, position: int, mask: int) -> tuple[int, int]:
    """Read an integer and where it ends; IndexError when the block is cut short, which h2 understands."""
    number = data[position] & mask
    position += 1
    if number < mask:
        return number, position
    shift = 0
    while True:
        byte = data[position]
        position += 1
        number += (byte & 0x7F) << shift
        if number > _LARGEST_INTEGER or shift > 28:
            raise HPACKDecodingError("integer too large")
        if byte < 0x80:
            return number, position
        shift += 7


def _text(data: bytes, position: int) -> tuple[bytes, int]:
    is_huffman = data[position] & 0x80
    length, start = _integer(data, position, 0x7F)
    end = start + length
    if end > len(data):
        raise HPACKDecodingError("text cut short")
    text = data[start:end]
    return (_huffman(text) if is_huffman else text), end


def _huffman(text: bytes) -> bytes:
    parts: list[bytes] = []
    state = 0
    may_end = HUFFMAN_COMPLETE
    for byte in text:
        key = state << 8 | byte
        step = _STEPS.get(key)
        if step is None:
            step = _STEPS[key] = _step(state, byte)
        state, emitted, may_end = step
        parts.append(emitted)
    if not may_end:
        raise HPACKDecodingError("incomplete Huffman text")
    return b"".join(parts)


def _step(state: int, byte: int) -> tuple[int, bytes, int]:
    emitted = bytearray()
    flags = 0
    for nibble in (byte >> 4, byte & 0x0F):
        state, flags, symbol = HUFFMAN_TABLE[state * 16 + nibble]
        if flags & HUFFMAN_FAIL:
            raise HPACKDecodingError("invalid Huffman text")
        if flags & HUFFMAN_EMIT_SYMBOL:
            emitted.append(symbol)
    return state, bytes(emitted), flags & HUFFMAN_COMPLETE
