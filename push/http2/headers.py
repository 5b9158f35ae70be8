"""Header blocks (HPACK, RFC 7541): the `hpack` package, with a cache of the bytes that repeat from call to call."""

import logging
from collections.abc import Sequence

from hpack import Decoder, Encoder, HeaderTuple, HPACKError
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from push.http2.frames import BrokenProtocol

logging.getLogger("hpack").setLevel(logging.WARNING)  # at DEBUG it prints header values, tokens included

MAX_TABLE = 4096  # bytes, of the encoder's table
MAX_CACHED = 64  # blocks of answers
_INDEXED = 0x80
_INSERTED = 0x40  # the top two bits of a literal that enters the table
_NEVER_INDEXED = 0x10


class HeaderWriter:
    """Writes header blocks, without Huffman coding: in Python that takes long, and saves some 60 bytes."""

    def __init__(self) -> None:
        self._hpack = Encoder()
        self._in_table: dict[HeaderTuple, bytes] = {}  # valid until the table changes
        self._prefixes: dict[bytes, bytes] = {}  # of never indexed fields, by name

    def limit_table(self, size: int) -> None:
        """Obey the peer's SETTINGS_HEADER_TABLE_SIZE."""
        size = min(size, MAX_TABLE)
        if size != self._hpack.header_table_size:
            self._hpack.header_table_size = size
            self._in_table.clear()

    def written(self, headers: Sequence[HeaderTuple]) -> bytes:
        """Write a block. An indexable field is sent in full once, and as one byte from then on."""
        parts = [self._hpack.encode([])] if self._hpack.header_table.resized else []
        for header in headers:
            if header.indexable:
                parts.append(self._in_table.get(header) or self._indexed(header))
            else:
                parts.append(self._never_indexed(header))
        return b"".join(parts)

    def _indexed(self, header: HeaderTuple) -> bytes:
        name, value = header
        field = self._hpack.add((name, value), sensitive=False)
        if field[0] & _INDEXED:
            self._in_table[header] = field
        elif field[0] & _INSERTED:
            self._in_table.clear()  # everything in the table has moved
        return field

    def _never_indexed(self, header: HeaderTuple) -> bytes:
        name, value = header
        prefix = self._prefixes.get(name)
        if prefix is None:
            prefix = self._prefixes[name] = _never_indexed_name(name)
        size = len(value)
        return prefix + (bytes((size,)) if size < 0x7F else bytes(encode_integer(size, 7))) + value


class HeaderReader:
    """Reads header blocks. A block of indexes alone has the same meaning until the table changes."""

    def __init__(self) -> None:
        self._hpack = Decoder()
        self._cached: dict[bytes, dict[bytes, bytes]] = {}

    def read(self, block: bytes) -> dict[bytes, bytes]:
        """Read a block; of a repeated field the last value counts. Raises BrokenProtocol."""
        is_indexed = bool(block) and min(block) >= _INDEXED and max(block) < 0xFF
        if is_indexed and (known := self._cached.get(block)):
            return known
        try:
            fields = self._hpack.decode(block, raw=True)
        except HPACKError as error:
            raise BrokenProtocol(type(error).__name__) from error
        read = {bytes(name): bytes(value) for name, value in fields}
        if not is_indexed or len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        if is_indexed:
            self._cached[block] = read
        return read


def _never_indexed_name(name: bytes) -> bytes:
    if known := HeaderTable.STATIC_TABLE_MAPPING.get(name):
        prefix = encode_integer(known[0], 4)
        prefix[0] |= _NEVER_INDEXED
        return bytes(prefix)
    return bytes((_NEVER_INDEXED,)) + bytes(encode_integer(len(name), 7)) + name
