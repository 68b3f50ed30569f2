"""The epoch-fenced producer: plain idempotent appends that carry a transactional id's producer epoch.

A Kafka leader checks the epoch of every data batch, transactional or not (ProducerAppendInfo,
``maybeValidateDataBatch``). So an owner that took a newer epoch and appended once has shut all older owners
out of the partition, and no transaction is needed, which would cost a round trip to the coordinator and
markers in the log (KIP-98 describes ids and epochs).

Owns a producer's sequence, what a broker's error means to an owner, and when an append is tried again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import (
    BrokerResponseError,
    ConcurrentTransactions,
    DuplicateSequenceNumber,
    InvalidProducerEpoch,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    NoError,
    ProducerClosed,
    RecordListTooLargeError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.connection import PASSING, kafka_errors, meaning
from waypost_worker.kafka.group_append import GroupAppender, hold_seconds
from waypost_worker.kafka.group_claim import GroupClaimer
from waypost_worker.kafka.produce import MAX_BATCH_BYTES, Answer, NotSentError, OutgoingBatch
from waypost_worker.partition.ports import (
    Fence,
    FencedError,
    RefusedError,
    ResultRecord,
    UnavailableError,
)

_T = TypeVar("_T")

# A sequence number has 31 bits; a new claim starts again from 0 long before it wraps.
LAST_SEQUENCE: Final = 2**30
_BACKOFF: Final = 0.05
_MAGIC: Final = 2
_UNCOMPRESSED: Final = 0
# PRODUCER_FENCED, which aiokafka does not know.
_FENCED: Final = (InvalidProducerEpoch.errno, 90)
_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)


async def claim_epoch(client: ClusterClient, transactional_id: str) -> Fence:
    """Take a producer id and an epoch above all that were given for this id before (InitProducerId).

    Raises:
        UnavailableError: The coordinator did not answer in time.
        RefusedError: The worker's principal may not use this id.
    """
    ask = partial(client.shared(GroupClaimer).claim, transactional_id)
    user = object()
    await client.use(user)
    try:
        async with kafka_errors(f"claiming the producer epoch of {transactional_id!r}"):
            return await _persist(client, ask, client.connection.start_timeout)
    finally:
        await client.release(user)


class FencedProducer:
    """Appends to one partition under a claimed epoch. Of no use any more after the first error."""

    def __init__(self, client: ClusterClient, topic: str, partition: int, fence: Fence) -> None:
        self._client = client
        self._appender = client.shared(GroupAppender)
        self._partition = TopicPartition(topic, partition)
        self._name = f"{topic}/{partition}"
        self._fence = fence
        self._sequence = 0
        self._usable = True
        self._under_way: OutgoingBatch | None = None
        self._slow = False  # a replica lags so far behind that its appends go separately from those of other partitions
        # When the broker took the last batch, in seconds since 1970, if the topic is dated by the broker.
        self.broker_time: float | None = None

    async def start(self) -> None:
        """Connect. UnavailableError if the cluster can't be reached in time."""
        await self._client.use(self)

    async def append(self, records: Sequence[ResultRecord]) -> int:
        """Append all records in order, and only them, as one batch of Kafka's; the offset of the first.

        ValueError if they do not fit into MAX_BATCH_BYTES: a batch is in the log as a whole or not at all, and of
        two, the first alone could be.
        """
        if not records:
            raise ValueError("nothing to append")
        if not self._usable:
            raise UnavailableError("this producer failed before; its sequence can no longer be trusted")
        if self._sequence + len(records) > LAST_SEQUENCE:
            raise UnavailableError("the sequence numbers of this producer are used up: claiming a new epoch")
        seconds = self._client.connection.request_timeout
        batch = OutgoingBatch(self._partition, self._batch(records), seconds)
        self._usable, self._under_way = False, batch
        try:
            offset = self._offset(await self._send(batch), batch)
            self._usable = batch.wanted
        finally:
            batch.wanted, self._under_way = False, None
        self._sequence += len(records)
        return offset

    async def close(self) -> None:
        """Give up. A request under way may or may not take effect; nothing is sent after it."""
        self._usable = False
        if self._under_way is not None:
            self._under_way.wanted = False
        await self._client.release(self)

    def _batch(self, records: Sequence[ResultRecord]) -> bytearray:
        now = time.time_ns() // 1_000_000
        builder: Any = DefaultRecordBatchBuilder(
            _MAGIC, _UNCOMPRESSED, 0, *self._fence, self._sequence, MAX_BATCH_BYTES
        )
        append = builder.append
        for held, (key, value, headers) in enumerate(records):
            if append(held, now, key, value, headers) is None:
                raise ValueError(f"only {held} of {len(records)} results fit into {MAX_BATCH_BYTES} bytes")
        built: bytearray = builder.build()
        return built

    async def _send(self, batch: OutgoingBatch) -> Answer:
        """Send a batch, the same bytes again after errors that pass, and return the answer.

        The outcome of a batch that got no answer in time is unknown, as after any lost reply.
        """
        try:
            return await _persist(
                self._client, partial(self._attempt, batch), self._client.connection.request_timeout
            )
        except PASSING as error:
            raise meaning(f"appending to {self._name}", error) from error

    async def _attempt(self, batch: OutgoingBatch) -> Answer:
        if not batch.wanted:
            raise ProducerClosed
        loop, hold = asyncio.get_running_loop(), hold_seconds(self._client.connection)
        began = loop.time()
        answer = await self._appender.append(batch, beside=self._slow)
        error = for_code(answer.error_code)
        self._slow = error is RequestTimedOutError or (self._slow and loop.time() - began >= hold)
        if error.retriable:
            raise error
        return answer

    def _offset(self, answer: Answer, batch: OutgoingBatch) -> int:
        """Return where a batch begins in the log. Raise what its answer means if it does not say."""
        topic, partition = self._partition
        error = for_code(answer.error_code)
        if answer.error_code in _FENCED:
            raise FencedError(
                f"another worker took over partition {partition} in Kafka: its epoch is now higher"
            )
        if error in _TOO_LARGE:
            raise RefusedError(
                f"a batch of {len(batch.data)} bytes is too large for {topic} ({error.__name__}). No part "
                f"of it was written, and its commands stay applied; set max.message.bytes={MAX_BATCH_BYTES} "
                "on the topic"
            )
        if error is InvalidTimestampError:
            raise RefusedError(
                f"the broker rejects the time of this machine's clock for {topic}: it is too far ahead. "
                "Nothing was written, and commands stay applied. Set the clock, and run 'waypost topics "
                "update' so that the broker timestamps results itself"
            )
        if error not in (NoError, DuplicateSequenceNumber):
            why = error(f"error code {answer.error_code}")
            raise meaning(f"appending to {self._name}", why) from why
        if answer.offset < 0:
            # DuplicateSequenceNumber: the broker has the batch already but has forgotten where.
            raise UnavailableError(f"Kafka has a batch of {self._name} but no longer knows where")
        self.broker_time = answer.time_ms / 1000 if answer.time_ms >= 0 else None
        return answer.offset


async def _persist(client: ClusterClient, attempt: Callable[[], Awaitable[_T]], seconds: float) -> _T:
    """Attempt until it succeeds, looking for leaders again in between. Raise the last error when time is up."""
    last: Exception | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    if last is not None:
                        await asyncio.sleep(_BACKOFF)
                        if not isinstance(last, (BrokerResponseError, NotSentError)) or last.invalid_metadata:
                            await client.refresh()
                    return await attempt()
                except (*PASSING, UnavailableError) as error:
                    if isinstance(error, KafkaError) and not (
                        error.retriable or isinstance(error, ConcurrentTransactions)
                    ):
                        raise
                    if last is None or not isinstance(error, NotSentError):
                        last = error
    except TimeoutError:
        raise last or TimeoutError(f"no answer within {seconds:g} s") from None
