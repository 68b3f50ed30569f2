"""The destination of events that their handler could not handle: a topic of your choice, with the reason.

A dead letter is the original record (key, headers, body) with additional headers, all of them text:

- ``deadletter-error``, ``deadletter-message``: the class and the text of the handler's last error;
- ``deadletter-attempts``: the number of attempts; ``deadletter-group``: the consumer group; ``deadletter-time``: the
  last attempt;
- ``deadletter-topic``, ``deadletter-partition``, ``deadletter-offset``: where the event is in the results.
"""

import asyncio
import inspect
import random
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from waypost.errors import DeadLetterError
from waypost.kafka.batch_producer import BatchProducer, ProducerBatch
from waypost.kafka.client_options import rejecting_options
from waypost.kafka.partitions import partitions_of
from waypost.kafka.quiet import quiet
from waypost.model.times import format_micros, to_micros
from waypost.subscriber.events import Event
from waypost.wire.topics import murmur2

_LONGEST_MESSAGE: Final = 2000
_TOPIC_SECONDS: Final = 10.0


class DeadLetters:
    """A producer to one topic. ``options`` are the consumer's: those that a producer knows are its own too."""

    def __init__(self, topic: str, group: str | None, options: Mapping[str, Any]) -> None:
        known = inspect.signature(AIOKafkaProducer).parameters
        self._topic = topic
        self._group = group
        self._partitions: list[int] = []
        self._turns: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        with quiet(), rejecting_options():
            self._producer = BatchProducer(
                topic, {name: value for name, value in options.items() if name in known}
            )

    async def __aenter__(self) -> Self:
        """Connect. Raise DeadLetterError if the topic does not exist, which is better than at the first dead letter."""
        try:
            async with asyncio.timeout(_TOPIC_SECONDS):
                with quiet():
                    await self._producer.start()
                self._partitions = await partitions_of(self._producer.connections, self._topic)
        except BaseException as error:
            await self._producer.close()
            if isinstance(error, KafkaError | TimeoutError):
                raise DeadLetterError(
                    f"the dead-letter topic {self._topic!r} can't be used ({error!r}): create it, with a "
                    "max.message.bytes somewhat above that of the results topic. No event was taken"
                ) from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.close()

    async def put(self, event: Event, error: Exception, attempts: int) -> None:
        """Return once Kafka has it. Raise DeadLetterError if Kafka does not accept it."""
        batch = self._producer.create_batch()
        batch.append(key=event.key, value=event.raw_body, headers=self._headers(event, error, attempts))
        try:
            await self._land(batch, self._partition_of(event.key))
        except KafkaError as refusal:
            raise DeadLetterError(
                f"event {event.id} failed {attempts} times and the dead-letter topic {self._topic!r} did not accept "
                f"it: {refusal!r}. The position stays before it: fix the topic and run again"
            ) from error

    def _partition_of(self, key: bytes | None) -> int:
        """Return the partition that Kafka's standard partitioner gives."""
        if key is None:
            return random.choice(self._partitions)
        return self._partitions[(murmur2(key) & 0x7FFFFFFF) % len(self._partitions)]

    async def _land(self, batch: ProducerBatch, partition: int) -> None:
        async with self._turns[partition]:
            landed = self._producer.send_batch(batch, partition)
            while not (await asyncio.wait({landed}, timeout=_TOPIC_SECONDS))[0]:
                # An outage is waited out, but nobody creates a topic again that was deleted.
                if not self._producer.connections.cluster.partitions_for_topic(self._topic):
                    raise UnknownTopicOrPartitionError(self._topic)
            landed.result()

    def _headers(self, event: Event, error: Exception, attempts: int) -> list[tuple[str, bytes | None]]:
        added = {
            "error": type(error).__qualname__,
            "message": str(error)[:_LONGEST_MESSAGE],
            "attempts": str(attempts),
            "group": self._group or "",
            "time": format_micros(to_micros(datetime.now(UTC))),
            "topic": event.topic,
            "partition": str(event.partition),
            "offset": str(event.offset),
        }
        new = [(f"deadletter-{name}", text.encode(errors="backslashreplace")) for name, text in added.items()]
        return [*event.headers, *new]
