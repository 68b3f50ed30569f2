"""Have a consumer of aiokafka decode what it fetches with ``record_batches``.

aiokafka's own decoder raises at batches that brokers accept and nobody can read, again at every try, and unpacks a
kilobyte to gigabytes. Here offsets without a readable record are passed over, within limits, and other tasks get turns.

Stands on private parts of aiokafka: the fetcher's ``_proc_fetch_request``, its ``_client`` and ``_records``, the class
``FetchResult``, and the layout of a fetch response. tests/integration/test_bounded_fetch.py holds them, and the version
is bounded above in pyproject.toml.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult

from waypost.kafka.record_batches import Damaged, Records, Unreadable, decode_batches

log = logging.getLogger("waypost")
OnPassed: TypeAlias = Callable[[TopicPartition, int], None]
# The most that one fetch of a partition returns. The rest is fetched later.
_MOST_RECORDS: Final = 20_000
_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_SECONDS: Final = 0.5
# Decoding lets other tasks run this often, in seconds.
_TURN: Final = 0.02
_DAMAGED_SECONDS: Final = 1.0
_OFFSET, _ERROR_CODE = 1, 1


def decode_bounded(consumer: AIOKafkaConsumer, passed: OnPassed | None = None) -> None:
    """Change the decoder of a consumer that was started, before it is assigned any partition.

    ``passed`` gets a partition and the next offset to fetch each time everything before that was taken or, if nobody
    can read it, passed over.
    """
    fetcher: Any = consumer._fetcher
    fetcher._proc_fetch_request = _Fetching(fetcher, passed or _ignore).fetch


def _ignore(partition: TopicPartition, next_offset: int) -> None:
    """Nobody wants to know."""


class _Fetched(NamedTuple):
    partition: TopicPartition
    raw: bytes
    aborted: Sequence[tuple[int, int]] | None


class _Call:
    """Stands for the fetcher during one request: it sees every response without its record batches."""

    def __init__(self, fetcher: Any) -> None:
        self.fetched: list[_Fetched] = []
        self._fetcher = fetcher
        self._client = _Client(fetcher._client, self.fetched)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fetcher, name)


class _Client:
    def __init__(self, client: Any, fetched: list[_Fetched]) -> None:
        self._real = client
        self._fetched = fetched

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def send(self, node_id: int, request: Any) -> Any:
        response = await self._real.send(node_id, request)
        emptied = []
        for topic, partitions in response.topics:
            rest = []
            for fields in partitions:
                aborted = None
                if response.API_VERSION >= 4:
                    aborted = fields[5] if response.API_VERSION >= 11 else fields[-2]
                if fields[_ERROR_CODE] == 0 and fields[-1]:
                    partition = TopicPartition(topic, fields[0])
                    self._fetched.append(_Fetched(partition, bytes(fields[-1]), aborted))
                rest.append((*fields[:-1], b""))
            emptied.append((topic, rest))
        response.topics = emptied
        return response


class _Fetching:
    """Replaces the fetcher's handling of a fetch request."""

    def __init__(self, fetcher: Any, passed: OnPassed) -> None:
        self._fetcher = fetcher
        self._passed = passed
        self._original = type(fetcher)._proc_fetch_request

    async def fetch(self, assignment: Any, node_id: int, request: Any) -> bool:
        """Send a request and keep the records that it brings. Return whether there is anything to take."""
        call = _Call(self._fetcher)
        wakes: bool = await self._original(call, assignment, node_id, request)
        asked = {
            TopicPartition(topic, one[0]): one[_OFFSET]
            for topic, partitions in request.topics
            for one in partitions
        }
        for fetched in call.fetched:
            wakes |= await self._keep(assignment, fetched, asked[fetched.partition])
        return wakes

    async def _keep(self, assignment: Any, fetched: _Fetched, offset: int) -> bool:
        fetcher, partition = self._fetcher, fetched.partition

        def is_wanted() -> bool:
            if not assignment.active:
                return False
            state = assignment.state_value(partition)
            return bool(state.has_valid_position and state.position == offset)

        if not is_wanted():
            return False
        aborted = fetched.aborted or () if fetcher._isolation_level == READ_COMMITTED else None
        try:
            found = await _decoded(fetched, offset, aborted, self._passed)
        except Exception as error:
            fetcher._set_error(partition, error)  # raised where the application asks for records
            return True
        if found.next_fetch_offset == found.behind or not is_wanted():
            return False
        fetcher._records[partition] = FetchResult(
            partition, assignment=assignment, partition_records=found, backoff=fetcher._prefetch_backoff
        )
        return True


class _Decoded:
    """Takes the place of aiokafka's ``PartitionRecords``. ``behind`` is the offset to fetch next."""

    def __init__(
        self,
        partition: TopicPartition,
        records: Sequence[Any],
        offset: int,
        behind: int,
        passed: OnPassed,
    ) -> None:
        self._partition = partition
        self._passed = passed
        self.next_fetch_offset = offset
        self.behind = behind
        self._left = iter(records)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        record = next(self._left, None)
        if record is None:
            self.next_fetch_offset = self.behind
            self._passed(self._partition, self.behind)
            raise StopIteration
        self.next_fetch_offset = record.offset + 1
        return record


async def _decoded(
    fetched: _Fetched, offset: int, aborted: Sequence[tuple[int, int]] | None, passed: OnPassed
) -> _Decoded:
    topic, number = fetched.partition
    clock = asyncio.get_running_loop().time
    turn = clock() + _TURN
    end = clock() + _MOST_SECONDS
    records: list[Any] = []
    size, behind = 0, offset
    for piece in decode_batches(fetched.raw, offset, aborted=aborted):
        match piece:
            case Records():
                for record in piece.records:
                    key, value = record.key, record.value
                    size += len(value or b"")
                    records.append(
                        ConsumerRecord(
                            topic,
                            number,
                            record.offset,
                            record.timestamp,
                            record.timestamp_type,
                            key,
                            value,
                            None,
                            -1 if key is None else len(key),
                            -1 if value is None else len(value),
                            tuple(record.headers),
                        )
                    )
            case Unreadable():
                place = f"{topic}/{number}, offsets {piece.first} to {piece.last}"
                log.warning("%s can't be read: %s They are ignored", place, piece.message)
            case Damaged():
                if not records:
                    log.warning("%s/%s: %s It is fetched again", topic, number, piece.message)
                    await asyncio.sleep(_DAMAGED_SECONDS)
                break
        behind = piece.last + 1
        now = clock()
        if len(records) >= _MOST_RECORDS or size >= _MOST_BYTES or now > end:
            break
        if now > turn:
            await asyncio.sleep(0)
            turn = clock() + _TURN
    return _Decoded(fetched.partition, records, offset, behind, passed)
