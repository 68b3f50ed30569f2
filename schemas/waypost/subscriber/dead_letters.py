"""The destination of events that their handler could not handle: a topic of your choice, with the reason.

A dead letter is the original record (key, headers, body) with additional headers, all of them text:

- ``deadletter-error``, ``deadletter-message``: the class and the text of the handler's last error;
- ``deadletter-attempts``: the number of attempts; ``deadletter-group``: the consumer group; ``deadletter-time``: the
  last attempt;
- ``deadletter-topic``, ``deadletter-partition``, ``deadletter-offset``: where the event is in the results.
"""

import asyncio
import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from waypost.errors import DeadLetterError
from waypost.kafka.partitions import partitions_of
from waypost.kafka.quiet import quiet
from waypost.model.times import format_micros, to_micros
from waypost.subscriber.events import Event

_LONGEST_MESSAGE: Final = 2000
_TOPIC_SECONDS: Final = 10.0
# A dead letter is larger than its event, which may be as large as the results topic lets it be.
_LARGEST: Final = 2**31 - 1


class DeadLetters:
    """A producer to one topic. ``options`` are the consumer's: those that a producer knows are its own too."""

    def __init__(self, topic: str, group: str | None, options: Mapping[str, Any]) -> None:
        known = inspect.signature(AIOKafkaProducer).parameters
        self._topic = topic
        self._group = group
        self._producer = AIOKafkaProducer(
            **{name: value for name, value in options.items() if name in known},
            enable_idempotence=True,
            acks="all",
            max_request_size=_LARGEST,
        )

    async def __aenter__(self) -> Self:
        """Connect. Raise DeadLetterError if the topic does not exist, which is better than at the first dead letter."""
        try:
            with quiet():
                await self._producer.start()
            async with asyncio.timeout(_TOPIC_SECONDS):
                await partitions_of(self._producer.client, self._topic)
        except BaseException as error:
            await self._producer.stop()
            if isinstance(error, KafkaError | TimeoutError):
                raise DeadLetterError(
                    f"the dead-letter topic {self._topic!r} can't be used ({error!r}): create it, with a "
                    "max.message.bytes somewhat above that of the results topic. No event was taken"
                ) from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def put(self, event: Event, error: Exception, attempts: int) -> None:
        """Return once Kafka has it. Raise DeadLetterError if Kafka does not accept it."""
        try:
            await self._producer.send_and_wait(
                self._topic, event.raw_body, key=event.key, headers=self._headers(event, error, attempts)
            )
        except KafkaError as refusal:
            raise DeadLetterError(
                f"event {event.id} failed {attempts} times and the dead-letter topic {self._topic!r} did not accept "
                f"it: {refusal!r}. The position stays before it: fix the topic and run again"
            ) from error

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
