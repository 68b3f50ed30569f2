"""A fetch of ordinary batches decodes to what the Kafka client's own iterator makes of it, and may time out."""

import gc
import struct
import weakref
from collections.abc import Hashable
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import OffsetOutOfRangeError, RequestTimedOutError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import assume, given
from hypothesis import strategies as st

from waypost.kafka.record_batches import Damaged, Records, decode_batches, end_of
from waypost_worker.kafka.client import ClusterClient, Lane
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.fetch_by_id import Fetched, TopicIdRequest
from waypost_worker.kafka.partition_reader import PartitionReader
from waypost_worker.partition.ports import RefusedError, UnavailableError

PARTITION = TopicPartition("topic", 0)
_BASE_OFFSET = struct.Struct(">q")
_LEADER_EPOCH = struct.Struct(">i")
_LEADER_EPOCH_AT = 12


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


class Response(NamedTuple):
    """The part of a fetch response that a reader looks at."""

    topics: list[Any]
    API_VERSION: int = 4


class Broker(ClusterClient):
    """Answers fetches one after the other, with bytes or an error. It has no ids of topics."""

    def __init__(self, *answers: bytes | Exception) -> None:
        super().__init__(Connection("nowhere:9092"))
        self._answers = list(answers)
        self.asked: list[int] = []
        self.asked_for_ids = 0

    async def use(self, user: object) -> None:
        pass

    async def leader_of(self, partition: TopicPartition) -> int:
        return 1

    async def send(self, node: int, request: Any, lane: Hashable = Lane.CONTROL) -> Response:
        if isinstance(request, TopicIdRequest):
            self.asked_for_ids += 1
            raise NotImplementedError  # as the client does if a broker is older than 3.1
        self.asked.append(request._topics[0][1][0][1])
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Response([("topic", [(0, 0, 99, 99, [], answer)])])


def reader_of(broker: Broker) -> PartitionReader:
    return PartitionReader(broker, PARTITION, "read_committed")


def large_batch(first: int) -> bytes:
    """More than the half of a fetch, so that another is begun before this one is read."""
    builder = BatchBuilder(8_000_000, 0)
    for number in range(5):
        builder.append(timestamp=number, key=b"k", value=bytes(1_000_000), headers=[])
    raw = bytes(builder._build())
    return _BASE_OFFSET.pack(first) + raw[_BASE_OFFSET.size :]


async def test_a_fetch_that_times_out_before_anybody_waits_for_it_is_sent_again() -> None:
    broker = Broker(large_batch(0), RequestTimedOutError(), batch(5, 2))
    reader = reader_of(broker)
    found = [[record.offset for record in await reader.get(1000, 5)] for _ in range(2)]
    assert found == [[0, 1, 2, 3, 4], [5, 6]]
    assert broker.asked == [0, 5, 5]
    assert broker.asked_for_ids == 1, "it has none, and won't have any"


async def test_a_fetch_that_times_out_while_it_is_waited_for_means_that_kafka_is_unavailable() -> None:
    reader = reader_of(Broker(RequestTimedOutError()))
    with pytest.raises(UnavailableError, match="RequestTimedOutError"):
        await reader.get(1000, 3)
    reader = reader_of(Broker(large_batch(0), RequestTimedOutError(), RequestTimedOutError()))
    assert len(await reader.get(1000, 5)) == 5
    with pytest.raises(UnavailableError, match="RequestTimedOutError"):
        await reader.get(1000, 5)


async def test_a_fetch_that_ends_with_a_whole_piece_is_not_the_end_of_the_log() -> None:
    """An empty answer means that there is nothing now: verify would look at all that is left at once."""
    reader = reader_of(Broker(batch(0, 5), batch(5, 5)))
    found = [[record.offset for record in await reader.get(1000, 5)] for _ in range(2)]
    assert found == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def led(raw: bytes, leader_epoch: int) -> bytes:
    """A batch as a leader of this epoch wrote it."""
    at, end = _LEADER_EPOCH_AT, _LEADER_EPOCH_AT + _LEADER_EPOCH.size
    return raw[:at] + _LEADER_EPOCH.pack(leader_epoch) + raw[end:]


class FetchedReader(PartitionReader):
    """Gets these fetches, one after the other."""

    def __init__(self, *fetches: bytes) -> None:
        super().__init__(Broker(), PARTITION, "read_committed")
        self.fetches = list(fetches)
        self.asked: list[tuple[int, int]] = []

    async def _fetch(self, offset: int, last_epoch: int) -> Fetched:
        self.asked.append((offset, last_epoch))
        return Fetched(0, 100, 100, [], self.fetches.pop(0), None)


async def test_the_epoch_of_the_last_record_is_told_with_each_fetch() -> None:
    reader = FetchedReader(led(batch(3, 2), 4) + led(batch(5, 2), 7), led(batch(7, 1), 7))
    await reader.seek(3, 2)
    assert len(await reader.get(1000, 10)) == 4
    assert len(await reader.get(1000, 10)) == 1
    assert reader.asked == [(3, 2), (7, 7)]


async def test_records_of_an_earlier_leader_than_those_before_them_are_refused() -> None:
    reader = FetchedReader(led(batch(3, 2), 4), led(batch(5, 2), 3))
    await reader.seek(3)
    assert len(await reader.get(1000, 10)) == 2
    with pytest.raises(RefusedError, match="was cut"):
        await reader.get(1000, 10)


class OutOfRange(FetchedReader):
    """Gets no fetch from a log with these bounds."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        self._bounds = (start, end)

    async def _fetch(self, client: Any, offset: int, last_epoch: int) -> Fetched:
        raise OffsetOutOfRangeError

    async def bounds(self) -> tuple[int, int]:
        return self._bounds


@pytest.mark.parametrize("position", [4, 7, 9])
async def test_an_offset_that_a_broker_denies_and_has_is_asked_for_again(position: int) -> None:
    """KAFKA-16073: brokers with tiered storage do so while they delete local segments."""
    reader = OutOfRange(4, 9)
    await reader.seek(position)
    with pytest.raises(UnavailableError, match=f"has no offset {position}, and then that it has 4 to 8"):
        await reader.get(1000, 10)


@pytest.mark.parametrize("position", [3, 10])
async def test_an_offset_that_a_log_does_not_have_is_refused(position: int) -> None:
    reader = OutOfRange(4, 9)
    await reader.seek(position)
    with pytest.raises(RefusedError, match=f"holds offsets 4 to 8, and {position} is to be read next"):
        await reader.get(1000, 10)
