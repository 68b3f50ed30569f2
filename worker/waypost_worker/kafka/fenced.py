"""The epoch-fenced producer: plain idempotent appends that carry a transactional id's producer epoch.

A Kafka leader checks the epoch of every data batch, transactional or not (ProducerAppendInfo,
``maybeValidateDataBatch``). So an owner that took a newer epoch and appended once has shut all older owners
out of the partition, and no transaction is needed, which would cost a round trip to the coordinator and
markers in the log (KIP-98 describes ids and epochs).

The only module that touches private attributes of aiokafka: the producer id and epoch, which it neither
shows nor takes. A contract test holds them against the real broker; pyproject bounds aiokafka's version.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.partition.ports import Fence, FencedError, ResultRecord, UnavailableError

MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
# aiokafka lets sequence numbers wrap wrongly at 2**31; a new claim starts again from 0.
_LAST_SEQUENCE: Final = 2**30
_CLOSE_SECONDS: Final = 1.0


async def claim_epoch(connection: Connection, transactional_id: str) -> Fence:
    """A producer id and an epoch above all that were given for this id before (InitProducerId)."""
    producer = AIOKafkaProducer(**connection.options(), transactional_id=transactional_id)
    try:
        async with kafka_errors(f"claiming the producer epoch of {transactional_id!r}"):
            await asyncio.wait_for(producer.start(), 2 * connection.request_timeout)
        manager: Any = producer._txn_manager
        return Fence(manager.producer_id, manager.producer_epoch)
    finally:
        await quietly(producer.stop(), _CLOSE_SECONDS)


class FencedProducer:
    """Appends to one partition under a claimed epoch. Of no use any more after the first error."""

    def __init__(self, connection: Connection, topic: str, partition: int, fence: Fence) -> None:
        self._timeout = connection.request_timeout
        self._topic = topic
        self._partition = partition
        self._sequence = 0
        self._usable = True
        self._producer = AIOKafkaProducer(
            **connection.options(),
            enable_idempotence=True,
            acks="all",
            max_batch_size=MAX_BATCH_BYTES + 1024,
            max_request_size=MAX_BATCH_BYTES + 65_536,
            linger_ms=0,
        )
        manager: Any = self._producer._txn_manager
        manager.set_pid_and_epoch(fence.producer_id, fence.producer_epoch)

    async def start(self) -> None:
        """Connect. UnavailableError if the cluster can't be reached in time."""
        async with kafka_errors("connecting the results producer"):
            await asyncio.wait_for(self._producer.start(), 2 * self._timeout)

    async def append(self, records: Sequence[ResultRecord]) -> int:
        """Append all records as one batch; the offset of the first."""
        if not self._usable:
            raise UnavailableError("this producer failed before; its sequence is not to be trusted any more")
        if self._sequence + len(records) > _LAST_SEQUENCE:
            raise UnavailableError("the sequence numbers of this producer are used up: claiming a new epoch")
        batch = self._producer.create_batch()
        for record in records:
            appended = batch.append(
                timestamp=None, key=record.key, value=record.value, headers=list(record.headers)
            )
            if appended is None:
                raise UnavailableError(f"{len(records)} results do not fit into one batch of Kafka's")
        batch.close()
        self._usable = False
        try:
            # An idempotent producer of aiokafka retries for ever, so the limit is set here. What happens to
            # the batch after that is unknown, as after any lost reply.
            async with asyncio.timeout(self._timeout):
                future = await self._producer.send_batch(batch, self._topic, partition=self._partition)
                metadata = await future
        except (ProducerFenced, InvalidProducerEpoch):
            raise FencedError(
                f"another worker took partition {self._partition} over in Kafka: its epoch is higher now"
            ) from None
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            raise UnavailableError(f"Kafka, appending results: {type(error).__name__}: {error}") from error
        self._usable = True
        self._sequence += len(records)
        return int(metadata.offset)

    async def close(self) -> None:
        """Give up. An append still under way may or may not take effect."""
        await quietly(self._producer.stop(), _CLOSE_SECONDS)
        # A sender that retries against a dead broker holds stop() up; its connections go all the same.
        await quietly(self._producer.client.close(), _CLOSE_SECONDS)
