"""The simulator's HPACK against the hpack package's."""

import pytest
from hpack.exceptions import HPACKError, InvalidTableSizeError, OversizedHeaderListError
from hpack.hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from simulator.header_blocks import RequestDecoder, ResponseEncoder

NAMES = st.sampled_from([b":method", b":path", b"apns-id", b"authorization", b"x"]) | st.binary(min_size=1, max_size=30)
VALUES = st.sampled_from([b"POST", b"/", b"200"]) | st.binary(max_size=300)
HEADER_LISTS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), max_size=6)


@given(blocks=HEADER_LISTS, huffman=st.booleans(), sizes=st.lists(st.integers(0, 4096), max_size=6))
def test_requests_are_read_as_the_package_writes_them(
    blocks: list[list[tuple[bytes, bytes]]], huffman: bool, sizes: list[int]
) -> None:
    encoder, decoder = Encoder(), RequestDecoder()

    for number, headers in enumerate(blocks):
        if number < len(sizes):
            encoder.header_table_size = sizes[number]
        assert list(decoder.decode(encoder.encode(headers, huffman), raw=True)) == headers


@given(blocks=HEADER_LISTS, sizes=st.lists(st.integers(0, 4096), max_size=3))
def test_answers_are_read_by_the_package_as_written(blocks: list[list[tuple[bytes, bytes]]], sizes: list[int]) -> None:
    encoder, decoder = ResponseEncoder(), Decoder()

    for number, headers in enumerate(blocks):
        if number < len(sizes):
            encoder.header_table_size = sizes[number]
        answer = [(b":status", b"200"), (b":status", b"418"), *headers]
        assert [tuple(header) for header in decoder.decode(encoder.encode(answer), raw=True)] == answer


@given(block=st.binary(max_size=60))
def test_nonsense_is_an_error_exactly_where_it_is_one_for_the_package(block: bytes) -> None:
    ours: object
    theirs: object
    try:
        theirs = [tuple(header) for header in Decoder().decode(block, raw=True)]
    except (HPACKError, IndexError):
        theirs = None
    try:
        ours = list(RequestDecoder().decode(block, raw=True))
    except (HPACKError, IndexError):
        ours = None

    assert ours == theirs


def test_a_header_list_too_large_is_refused() -> None:
    with pytest.raises(OversizedHeaderListError):
        RequestDecoder(100).decode(Encoder().encode([(b"x", b"y" * 100)]))


@pytest.mark.parametrize("block", [b"\x3f\xe2\x1f", b"\x82\x20"])
def test_a_table_may_not_grow_past_the_limit_nor_change_in_the_middle(block: bytes) -> None:
    with pytest.raises(InvalidTableSizeError):
        RequestDecoder().decode(block)
