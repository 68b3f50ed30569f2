"""An idempotent producer of one topic: batches of each partition in order, each in the log once.

Owns the producer's id and sequences, and when a batch is sent again: the same bytes with the same sequence, so that a
broker that has it already recognizes it. Batches for one broker that wait at the same time share a request.

aiokafka's producer can't be given up: its stop() waits for batches that can't be delivered.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.codec import has_gzip, has_lz4, has_snappy, has_zstd
from aiokafka.errors import (
    DuplicateSequenceNumber,
    KafkaError,
    NoError,
    TopicAuthorizationFailedError,
    UnknownError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from waypost.errors import InvalidArgumentError
from waypost.kafka.client_options import require_client_options
from waypost.kafka.topic_client import TopicClient

log = logging.getLogger("waypost")
_PRODUCE: Final = "produce"
_MAGIC: Final = 2
_ALL_REPLICAS: Final = -1
_REQUEST_MS: Final = 40_000
_BATCH_BYTES: Final = 16_384
# Nobody begins a transaction, but the request has the field.
_TRANSACTION_MS: Final = 60_000
_NO_CODEC: Final = 0
_CODECS: Final = {
    "gzip": (1, has_gzip),
    "snappy": (2, has_snappy),
    "lz4": (3, has_lz4),
    "zstd": (4, has_zstd),
}


class ProducerBatch:
    """Records that go to one partition together."""

    def __init__(self, codec: int, most_bytes: int) -> None:
        self._builder: Any = DefaultRecordBatchBuilder(_MAGIC, codec, 0, -1, -1, -1, most_bytes)
        self.count = 0

    def append(
        self, *, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]
    ) -> bool:
        """Append a record. Return whether it fits; the first one always does."""
        if self._builder.append(self.count, None, key, value, headers) is None:
            return False
        self.count += 1
        return True

    def size(self) -> int:
        """Return the size so far, before compression."""
        return int(self._builder.size())

    def build(self, producer_id: int, epoch: int, sequence: int) -> bytes:
        """Return the batch as it is sent. Nothing can be appended after this."""
        self._builder.set_producer_state(producer_id, epoch, sequence)
        return bytes(self._builder.build())


class _Waiting(NamedTuple):
    partition: int
    data: bytes
    landed: "asyncio.Future[int]"


class BatchProducer(TopicClient):
    """A producer with its own id, used from one event loop. ``options`` are those of aiokafka's producer.

    If a batch fails, do not use its partition with this producer again: its sequence has a gap.
    """

    def __init__(self, topic: str, options: Mapping[str, Any]) -> None:
        require_client_options(AIOKafkaProducer, options)
        super().__init__(topic, options)
        self._codec = _codec(options.get("compression_type"))
        self._batch_bytes = int(options.get("max_batch_size", _BATCH_BYTES))
        self._timeout_ms = int(options.get("request_timeout_ms", _REQUEST_MS))
        self._id = self._epoch = -1
        self._sequences: Counter[int] = Counter()
        self._waiting: dict[int, _Waiting] = {}
        self._unanswered: set[asyncio.Future[int]] = set()

    async def start(self) -> None:
        """Connect, and get a producer id.

        Raises:
            KafkaError: No broker can be reached, or none gives this client an id.
        """
        await self.connections.bootstrap()
        while not await self._got_id():
            await asyncio.sleep(self._backoff)
            await self.connections.refresh()
        self._begin(self._run())

    def create_batch(self) -> ProducerBatch:
        """Return an empty batch."""
        return ProducerBatch(self._codec, self._batch_bytes)

    def send_batch(self, batch: ProducerBatch, partition: int) -> "asyncio.Future[int]":
        """Send a batch. The previous one of this partition must have landed. Return a future for its offset.

        The offset is -1 if a broker knows that it has the batch and no longer where. The future gets a KafkaError if
        trying again can't help. Until then, the batch is sent again.
        """
        data = batch.build(self._id, self._epoch, self._sequences[partition])
        self._sequences[partition] += batch.count
        landed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._unanswered.add(landed)
        landed.add_done_callback(self._unanswered.discard)
        self._waiting[partition] = _Waiting(partition, data, landed)
        self._changed.set()
        return landed

    async def close(self) -> None:
        """Disconnect without waiting for batches: futures are canceled. Takes seconds at most."""
        await self._end_tasks()
        for landed in list(self._unanswered):
            landed.cancel()
        await self.connections.close()

    async def _got_id(self) -> bool:
        node = self.connections.get_random_node()
        try:
            request: Any = _untyped(InitProducerIdRequest)(None, _TRANSACTION_MS)
            answer = await self.connections.send(-1 if node is None else node, request)
            if (error := for_code(answer.error_code)) is not NoError:
                raise error
        except KafkaError as error:
            if not error.retriable:
                raise
            log.debug("no producer id yet: %r", error)
            return False
        self._id, self._epoch = answer.producer_id, answer.producer_epoch
        return True

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            due: dict[int, list[_Waiting]] = defaultdict(list)
            for one in self._waiting.values():
                leader = self.connections.cluster.leader_for_partition(
                    TopicPartition(self.topic, one.partition)
                )
                if leader is None or leader < 0:
                    self._refresh()
                elif leader not in self._asked:
                    due[leader].append(one)
            for node, some in due.items():
                self._asked.add(node)
                for one in some:
                    del self._waiting[one.partition]
                self._begin(self._produce(node, some))
            await self._changed.wait()

    async def _produce(self, node: int, some: list[_Waiting]) -> None:
        batches = [(one.partition, one.data) for one in some]
        request: Any = _untyped(ProduceRequest)(
            None, _ALL_REPLICAS, self._timeout_ms, [(self.topic, batches)]
        )
        answers: dict[int, tuple[int, int]] = {}
        failure: KafkaError | None = None
        try:
            response = await self.connections.send(node, request, group=_PRODUCE)
            for _, partitions in response.topics:
                for partition, code, offset, *_ in partitions:
                    answers[partition] = code, offset
        except KafkaError as error:
            log.debug("broker %s answers no batch: %r", node, error)
            failure = error
        except Exception as error:
            failure = KafkaError(repr(error))  # ends this producer
        finally:
            self._asked.discard(node)
            self._changed.set()
        again = [one for one in some if not self._is_settled(one, failure, answers.get(one.partition))]
        if again:
            await asyncio.sleep(self._backoff)
            await self.connections.refresh()
            self._waiting |= {one.partition: one for one in again}
            self._changed.set()

    def _is_settled(self, one: _Waiting, failure: KafkaError | None, answer: tuple[int, int] | None) -> bool:
        """Tell the sender of a batch how it ended. Return whether it did."""
        code, offset = (None, -1) if answer is None else answer
        problem = failure or self._problem(code)
        if problem is not None and problem.retriable:
            return False
        if one.landed.done():  # canceled
            return True
        if problem is None:
            one.landed.set_result(offset)
        else:
            one.landed.set_exception(problem)
        return True

    def _problem(self, code: int | None) -> KafkaError | None:
        error = UnknownError if code is None else for_code(code)
        if error in (NoError, DuplicateSequenceNumber):
            return None
        found: KafkaError = error(self.topic) if error is TopicAuthorizationFailedError else error()
        return found


def _untyped(untyped: Any) -> Any:
    """Return what takes None although its types forbid it."""
    return untyped


def _codec(name: object) -> int:
    if name is None:
        return _NO_CODEC
    if not isinstance(name, str) or name not in _CODECS:
        raise InvalidArgumentError(f"compression_type must be one of {', '.join(_CODECS)}")
    codec, is_there = _CODECS[name]
    if not is_there():
        raise InvalidArgumentError(f"the library for {name} is not installed")
    return codec
