"""A fetch of ordinary batches decodes to what the Kafka client's own iterator makes of it."""

import gc
import struct
import weakref

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import assume, given
from hypothesis import strategies as st

from waypost.kafka.record_batches import Damaged, Records, decode_batches, end_of

PARTITION = TopicPartition("topic", 0)
_BASE_OFFSET = struct.Struct(">q")


def batch(first: int, count: int) -> bytes:
    builder = BatchBuilder(1_000_000, 0)
    for number in range(count):
        builder.append(timestamp=number, key=b"k%d" % number, value=b"v" * number, headers=[("h", b"x")])
    raw = bytes(builder._build())
    return _BASE_OFFSET.pack(first) + raw[_BASE_OFFSET.size :]


def by_client(raw: bytes, offset: int) -> PartitionRecords:
    return PartitionRecords(PARTITION, MemoryRecords(raw), None, offset, None, None, True, 0)


counts = st.lists(st.integers(1, 8), max_size=6)


@given(counts, st.integers(0, 60), st.integers(0, 20))
def test_records_are_those_of_the_clients_iterator(counts: list[int], offset: int, torn: int) -> None:
    raw, first = b"", 0
    for count in counts:
        raw += batch(first, count)
        first += count + 1  # offsets may have gaps
    raw += batch(first, 3)[:torn]  # a broker cuts the last batch where the fetch is full
    client = by_client(raw, offset)
    expected = [
        (record.offset, record.key, record.value, list(record.headers))
        for record in client
        if record.offset >= offset  # it gives the last record of an earlier batch
    ]
    pieces = list(decode_batches(raw, offset))
    found = [
        (record.offset, record.key, record.value, list(record.headers))
        for piece in pieces
        if isinstance(piece, Records)
        for record in piece.records
    ]
    assert found == expected
    if pieces:
        assert pieces[-1].last + 1 == client.next_fetch_offset == end_of(raw)


@given(counts.filter(bool), st.data())
def test_a_byte_that_changed_on_its_way_is_noticed(counts: list[int], data: st.DataObject) -> None:
    raw = b"".join(batch(10 * number, count) for number, count in enumerate(counts))
    whole = bytearray(raw)
    at = data.draw(st.integers(len(raw) - len(batch(0, counts[-1])) + 17, len(raw) - 1))
    change = data.draw(st.integers(1, 255))
    whole[at] ^= change
    # The lowest bits of the attributes name a compression: what then can't be unpacked was noticed, too.
    assume(whole[at] != raw[at])
    assert isinstance(list(decode_batches(bytes(whole), 0))[-1], Damaged)


def test_a_fetch_leaves_memory_with_its_decoder_and_not_when_the_collector_looks() -> None:
    gc.disable()
    try:
        pieces = decode_batches(batch(0, 8), 0)
        gone = weakref.ref(pieces)
        assert len(list(pieces)) == 1
        del pieces
        assert gone() is None
    finally:
        gc.enable()
