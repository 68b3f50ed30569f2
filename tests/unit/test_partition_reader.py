"""A fetch of ordinary batches decodes to what the Kafka client's own iterator makes of it, and may time out."""

import asyncio
import gc
import struct
import weakref

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import RequestTimedOutError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.support.scripted_cluster import TOPIC, ScriptedCluster, on_virtual_time

from waypost.kafka.record_batches import Damaged, Records, decode_batches, end_of
from waypost_worker.kafka.partition_reader import PartitionReader
from waypost_worker.partition.ports import RefusedError, UnavailableError

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
        assert pieces[-1].last + 1 == client.next_fetch_offset == end_of(raw)[0]


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


VALUE = [b"v"]
LARGE = [bytes(1_000_000)] * 5
OUT_OF_RANGE = 1


def reader_of(cluster: ScriptedCluster) -> PartitionReader:
    return PartitionReader(cluster, TopicPartition(TOPIC, 0), "read_committed", is_live=True)


async def offsets(reader: PartitionReader, most: int = 100) -> list[int]:
    return [record.offset for record in await reader.get(1000, most)]


def test_a_fetch_that_times_out_before_anybody_waits_is_sent_again() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(1)
        cluster.append(0, LARGE)
        cluster.append(0, LARGE)
        reader = reader_of(cluster)
        assert await offsets(reader, 5) == [0, 1, 2, 3, 4]
        cluster.problems = [RequestTimedOutError()]
        await asyncio.sleep(0.0001)  # busy with what it took
        assert await offsets(reader, 5) == [5, 6, 7, 8, 9]
        assert [one.offsets[0] for one in cluster.sent] == [0, 5, 5]

    on_virtual_time(work)


def test_a_fetch_that_times_out_while_it_is_waited_for_means_that_kafka_is_unavailable() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(1)
        cluster.problems = [RequestTimedOutError()]
        with pytest.raises(UnavailableError, match="RequestTimedOutError"):
            await offsets(reader_of(cluster))

    on_virtual_time(work)


def test_a_fetch_that_ends_with_a_whole_piece_is_not_the_end_of_the_log() -> None:
    """An empty answer means that there is nothing now: verify would look at all that is left at once."""

    async def work() -> None:
        cluster = ScriptedCluster(1)
        cluster.append(0, LARGE)
        cluster.append(0, LARGE)
        reader = reader_of(cluster)
        found = [await offsets(reader, 5) for _ in range(2)]
        assert found == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]

    on_virtual_time(work)


def test_a_topic_id_is_asked_for_once() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(1, has_ids=False)
        reader = reader_of(cluster)
        for offset in range(3):
            cluster.append(0, VALUE)
            assert await offsets(reader) == [offset]
        assert cluster.asked_for_ids == 1, "there is none, and won't be any"

    on_virtual_time(work)


def test_the_epoch_of_the_last_record_is_sent_with_each_fetch() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(1)
        for epoch in (2, 4, 7):
            cluster.append(0, VALUE, epoch)
        reader = reader_of(cluster)
        await reader.seek(1, 2)
        assert await offsets(reader) == [1, 2]
        cluster.append(0, VALUE, 7)
        assert await offsets(reader) == [3]
        assert [(one.offsets[0], one.epochs[0]) for one in cluster.sent] == [(1, 2), (3, 7)]

    on_virtual_time(work)


def test_records_of_an_earlier_leader_than_those_before_them_are_refused() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(1)
        cluster.append(0, VALUE, 4)
        reader = reader_of(cluster)
        assert await offsets(reader) == [0]
        cluster.append(0, VALUE, 3)
        with pytest.raises(RefusedError, match="was truncated"):
            await offsets(reader)

    on_virtual_time(work)


def test_a_stretch_has_the_epoch_of_its_own_last_record() -> None:
    """What was fetched behind it may be of a later leader. A fetch from its end may bring records of an earlier one."""

    async def work() -> None:
        cluster = ScriptedCluster(1)
        for epoch in (2, 4, 7):
            cluster.append(0, VALUE, epoch)
        reader = reader_of(cluster)
        assert [record.offset async for piece in reader.read(0, 2) for record in piece] == [0, 1]
        assert reader.read_epoch == 4

    on_virtual_time(work)


async def reader_out_of_range(position: int, start: int, end: int) -> PartitionReader:
    """At a position that the broker denies, in a log with these bounds."""
    cluster = ScriptedCluster(1)
    cluster.logs[0].errors = [OUT_OF_RANGE]
    reader = reader_of(cluster)

    async def bounds() -> tuple[int, int]:
        return start, end

    reader.bounds = bounds  # type: ignore[method-assign]
    await reader.seek(position)
    return reader


@pytest.mark.parametrize("position", [4, 7, 9])
def test_an_offset_that_a_broker_denies_and_has_is_asked_for_again(position: int) -> None:
    """KAFKA-16073: brokers with tiered storage do so while they delete local segments."""

    async def work() -> None:
        reader = await reader_out_of_range(position, 4, 9)
        with pytest.raises(UnavailableError, match=f"has no offset {position}, and then that it has 4 to 8"):
            await offsets(reader)

    on_virtual_time(work)


@pytest.mark.parametrize("position", [3, 10])
def test_an_offset_that_a_log_does_not_have_is_refused(position: int) -> None:
    async def work() -> None:
        reader = await reader_out_of_range(position, 4, 9)
        with pytest.raises(
            RefusedError, match=f"has offsets 4 to 8, and {position} is the next offset to read"
        ):
            await offsets(reader)

    on_virtual_time(work)
