"""The epoch-fenced producer: plain idempotent appends that carry a transactional id's producer epoch.

A Kafka leader checks the epoch of every data batch, transactional or not (ProducerAppendInfo,
``maybeValidateDataBatch``). So an owner that took a newer epoch and appended once has shut all older owners
out of the partition, and no transaction is needed, which would cost a round trip to the coordinator and
markers in the log (KIP-98 describes ids and epochs).

The only module that touches private attributes of aiokafka's producer: its producer id and epoch, which it
neither shows nor takes, and its sender task, which would otherwise retry for ever. A contract test holds them
against the real broker; pyproject bounds aiokafka's version.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
)

from waypost_worker.kafka.connection import PASSING, Connection, kafka_errors, meaning, quietly
from waypost_worker.partition.ports import (
    Fence,
    FencedError,
    RefusedError,
    ResultRecord,
    UnavailableError,
)

MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
# aiokafka lets sequence numbers wrap wrongly at 2**31; a new claim starts again from 0.
LAST_SEQUENCE: Final = 2**30
_CLOSE_SECONDS: Final = 1.0
_LOG_APPEND_TIME: Final = 1


async def claim_epoch(connection: Connection, transactional_id: str) -> Fence:
    """A producer id and an epoch above all that were given for this id before (InitProducerId)."""
    producer = AIOKafkaProducer(**connection.options(), transactional_id=transactional_id)
    try:
        async with kafka_errors(f"claiming the producer epoch of {transactional_id!r}"):
            async with asyncio.timeout(connection.start_timeout):
                await producer.start()
        manager: Any = producer._txn_manager
        return Fence(manager.producer_id, manager.producer_epoch)
    finally:
        await quietly(producer.stop(), _CLOSE_SECONDS)


class FencedProducer:
    """Appends to one partition under a claimed epoch. Of no use any more after the first error."""

    def __init__(self, connection: Connection, topic: str, partition: int, fence: Fence) -> None:
        self._connection = connection
        self._topic = topic
        self._partition = partition
        self._sequence = 0
        self._usable = True
        # When the broker took the last batch, in seconds since 1970, if the topic is dated by the broker.
        self.broker_time: float | None = None
        self._producer = AIOKafkaProducer(
            **connection.options(),
            enable_idempotence=True,
            acks="all",
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_BATCH_BYTES + 65_536,
            linger_ms=0,
        )
        manager: Any = self._producer._txn_manager
        manager.set_pid_and_epoch(fence.producer_id, fence.producer_epoch)

    async def start(self) -> None:
        """Connect. UnavailableError if the cluster can't be reached in time."""
        async with kafka_errors("connecting the results producer"):
            async with asyncio.timeout(self._connection.start_timeout):
                await self._producer.start()

    async def append(self, records: Sequence[ResultRecord]) -> int:
        """Append all records in order, and only them, as one batch of Kafka's; the offset of the first.

        ValueError if they do not fit into MAX_BATCH_BYTES: a batch is in the log as a whole or not at all, and of
        two, the first alone could be.
        """
        if not records:
            raise ValueError("nothing to append")
        if not self._usable:
            raise UnavailableError("this producer failed before; its sequence is not to be trusted any more")
        if self._sequence + len(records) > LAST_SEQUENCE:
            raise UnavailableError("the sequence numbers of this producer are used up: claiming a new epoch")
        batch = self._batch(records)
        self._usable = False
        try:
            base = await self._send(batch)
        except BaseException:
            self._stop_sending()
            raise
        self._usable = True
        self._sequence += len(records)
        return base

    def _batch(self, records: Sequence[ResultRecord]) -> Any:
        # Past the batch's own append, whose two calls of Python each record would pay.
        now = time.time_ns() // 1_000_000
        batch: Any = self._producer.create_batch()
        append = batch._builder.append
        for held, (key, value, headers) in enumerate(records):
            if append(held, now, key, value, headers) is None:
                raise ValueError(f"only {held} of {len(records)} results fit into {MAX_BATCH_BYTES} bytes")
        batch._relative_offset = len(records)
        batch.close()
        return batch

    async def _send(self, batch: Any) -> int:
        try:
            # An idempotent producer of aiokafka retries for ever, so the limit is set here. What happens to
            # the batch after that is unknown, as after any lost reply.
            async with asyncio.timeout(self._connection.request_timeout):
                future = await self._producer.send_batch(batch, self._topic, partition=self._partition)
                sent = await future
        except (ProducerFenced, InvalidProducerEpoch):
            raise FencedError(
                f"another worker took partition {self._partition} over in Kafka: its epoch is higher now"
            ) from None
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            raise RefusedError(
                f"a batch of {batch.size()} bytes is too large for {self._topic} ({error}). Nothing of it was "
                f"written, and its commands stay applied; set max.message.bytes={MAX_BATCH_BYTES} on the topic"
            ) from None
        except InvalidTimestampError:
            raise RefusedError(
                f"the broker rejects the time of this machine's clock for {self._topic}: it is too far ahead. "
                "Nothing was written, and commands stay applied. Set the clock, and run 'waypost topics update' so "
                "that the broker dates results itself"
            ) from None
        except PASSING as error:
            raise meaning(f"appending to {self._topic}/{self._partition}", error) from error
        offset = int(sent.offset)
        self.broker_time = sent.timestamp / 1000 if sent.timestamp_type == _LOG_APPEND_TIME else None
        if offset < 0:
            # DuplicateSequenceNumber: the broker has the batch already but has forgotten where.
            raise UnavailableError(
                f"Kafka has a batch of {self._topic}/{self._partition} but does not know where any more"
            )
        return offset

    def _stop_sending(self) -> None:
        """From here on nothing is sent again; the request under way, if any, is still waited for."""
        self._usable = False
        sender: asyncio.Task[None] | None = self._producer._sender.sender_task
        if sender is not None and not sender.done():
            sender.cancel()

    async def close(self) -> None:
        """Give up. A request still under way may or may not take effect."""
        # stop() would wait for batches that can't be delivered; what it does besides is done here.
        self._producer._closed = True
        sender: asyncio.Task[None] | None = self._producer._sender.sender_task
        self._stop_sending()
        if sender is not None:
            # Cancelled once it waits for its request in flight, cancelled twice it does not.
            await asyncio.wait({sender}, timeout=0.05)
            self._stop_sending()
            await asyncio.wait({sender}, timeout=_CLOSE_SECONDS)
        await quietly(self._producer.client.close(), _CLOSE_SECONDS)
