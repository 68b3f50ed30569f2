"""Fetch requests and answers of version 13, byte by byte (KIP-516). Integration tests ask the real broker."""

import struct
from io import BytesIO
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost_worker.kafka.fetch_by_id import (
    Asked,
    FetchByIdRequest,
    Fetched,
    unpack_answer,
)

ONE, OTHER = UUID(int=1), UUID(int=2)


def test_a_request_lists_the_partitions_of_each_topic_in_order() -> None:
    asked = [Asked(ONE, 7, 100, 3, 4096), Asked(OTHER, 0, 0, -1, 50), Asked(ONE, 2, 9, 3, 4096)]
    request = FetchByIdRequest(asked, wait_ms=500, most_bytes=8192, isolation_level=1)
    head = struct.pack(">iiiibii", -1, 500, 1, 8192, 1, 0, -1)
    seven, two = (struct.pack(">iiqiqib", n, -1, at, 3, -1, 4096, 0) for n, at in ((7, 100), (2, 9)))
    null = struct.pack(">iiqiqib", 0, -1, 0, -1, -1, 50, 0)
    topics = b"\3" + ONE.bytes + b"\3" + seven + two + b"\0" + OTHER.bytes + b"\2" + null + b"\0"
    assert request.encode() == head + topics + b"\1\1\0"


def packed(partition: int, fetched: Fetched, extra: bytes = b"\0") -> bytes:
    head = struct.pack(">ihqqq", partition, fetched.error_code, fetched.high_watermark, fetched.stable_end, 0)
    aborted = bytes([len(fetched.aborted) + 1]) + b"".join(
        struct.pack(">qq", *one) + b"\0" for one in fetched.aborted
    )
    size, length = len(fetched.records) + 1, bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return head + aborted + struct.pack(">i", -1) + bytes(length) + bytes([size]) + fetched.records + extra


def answer(*partitions: bytes, error: int = 0) -> bytes:
    topics = b"\2" + ONE.bytes + bytes([len(partitions) + 1]) + b"".join(partitions) + b"\0"
    return struct.pack(">ihi", 0, error, 0) + topics + b"\0"


@given(
    st.lists(
        st.builds(
            Fetched,
            st.sampled_from([0, 1, 100]),
            st.integers(-1, 2**60),
            st.integers(-1, 2**60),
            st.lists(st.tuples(st.integers(0, 2**60), st.integers(0, 2**60)), max_size=3).map(tuple),
            st.binary(max_size=20_000),
            st.none(),
        ),
        max_size=5,
    )
)
def test_an_answer_is_unpacked(given_parts: list[Fetched]) -> None:
    raw = answer(*(packed(number, one) for number, one in enumerate(given_parts)))
    request = FetchByIdRequest([], wait_ms=0, most_bytes=0, isolation_level=0)
    found = request.decode(BytesIO(raw)).answer
    assert found.error_code == 0
    assert found.partitions == {(ONE, number): one for number, one in enumerate(given_parts)}


def test_where_the_log_ends_for_the_reader_s_epoch_is_in_a_tag_and_others_are_passed_over() -> None:
    nothing = Fetched(0, 9, 9, (), b"", None)
    diverging = b"\2" + b"\0\x0d" + struct.pack(">iqb", 4, 3, 0) + b"\1\x02ab"
    found = unpack_answer(answer(packed(0, nothing, diverging), packed(1, nothing)), 0).partitions
    assert (found[ONE, 0].cut_at, found[ONE, 1].cut_at) == (3, None)


def test_partitions_without_records_or_transactions_may_be_null() -> None:
    raw = answer(struct.pack(">ihqqq", 0, 0, 9, 9, 0) + b"\0" + struct.pack(">i", -1) + b"\0" + b"\0")
    assert unpack_answer(raw, 0).partitions[ONE, 0] == Fetched(0, 9, 9, (), b"", None)


def test_a_common_error_is_reported() -> None:
    assert unpack_answer(struct.pack(">ihi", 0, 70, 0) + b"\1\0", 0).error_code == 70


def test_an_answer_that_is_cut_off_is_not_taken_for_a_whole_one() -> None:
    raw = answer(packed(0, Fetched(0, 9, 9, (), b"", None)))
    for size in range(len(raw) - 1):
        with pytest.raises((struct.error, IndexError, ValueError)):
            unpack_answer(raw[:size], 0)
