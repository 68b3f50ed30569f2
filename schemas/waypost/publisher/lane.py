"""One partition of the command topic, as the sender serves it: a batch in flight and the next one filling.

Only one batch of a partition is with the producer at a time. If there were two, and the first was rejected, the
broker could still accept the second (a producer without a history in the partition may begin at any sequence number),
and the order of a session would be lost.
"""

import asyncio
from collections.abc import Callable

from waypost.kafka.batch_producer import BatchProducer, ProducerBatch
from waypost.publisher.buffer import Buffer
from waypost.publisher.pending import Pending
from waypost.wire.envelope import command_headers


class Lane:
    """Fills batches from the buffer's queue of one partition and launches them. ``landed`` is called at the end."""

    def __init__(
        self,
        producer: BatchProducer,
        partition: int,
        source: bytes,
        buffer: Buffer,
        landed: Callable[[], None],
    ) -> None:
        self.partition = partition
        self.sent = 0  # records, ever: what the producer's sequence number counts
        self.in_flight = 0
        self.launched_at = 0.0
        self._producer = producer
        self._source = source
        self._buffer = buffer
        self._landed = landed
        self._flight: asyncio.Future[int] | None = None
        self._batch: ProducerBatch | None = None
        self._filled = 0
        self._full = False
        self._sessions: dict[str | None, int] = {}  # what the batch that is filling holds of each

    def fill(self, most_count: int, batch_bytes: int) -> int:
        """Encode up to ``most_count`` waiting commands into the next batch; how many."""
        if self._full or not self._buffer.waits(self.partition):
            return 0
        if self._batch is None:
            self._batch = self._producer.create_batch()
        room = batch_bytes - self._batch.size()
        taken = self._buffer.take(self.partition, most_count, room, self._sessions)
        self._full = not taken
        added = 0
        for pending in taken:
            if not self._add(self._batch, pending):
                break
            added += 1
        self._filled += added
        if added < len(taken):
            self._buffer.give_back(self.partition, len(taken) - added)
            self._full = True
        return added

    def _add(self, batch: ProducerBatch, pending: Pending) -> bool:
        headers = command_headers(
            pending.command_id,
            pending.source or self._source,
            pending.command_type.encode(),
            pending.time,
            pending.traceparent,
        )
        key = None if pending.session_id is None else pending.session_id.encode()
        return batch.append(key=key, value=pending.value, headers=headers)

    @property
    def gathered(self) -> int:
        """Return how many records are in the next batch so far."""
        return self._filled

    @property
    def ready(self) -> bool:
        """Return whether there is something to launch and nothing in flight."""
        return self._filled > 0 and self._flight is None

    @property
    def blocked(self) -> bool:
        """Return whether nothing can be done here before the batch in flight lands, because the next one is full."""
        return self._full and self._flight is not None

    def launch(self) -> None:
        """Hand the batch to the producer."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        self.in_flight, self._filled, self._full, self._sessions = self._filled, 0, False, {}
        self.sent += self.in_flight
        self.launched_at = asyncio.get_running_loop().time()
        self._flight = self._producer.send_batch(batch, self.partition)
        self._flight.add_done_callback(self._on_landed)

    def _on_landed(self, flight: "asyncio.Future[int]") -> None:
        if not flight.cancelled():
            flight.exception()  # looked at, so that asyncio does not complain about a lane that was given up
        self._landed()

    def land(self) -> int | None:
        """The offset of the first record of a batch that Kafka took since the last call, None if there is none.

        Raise the KafkaError if it failed. ``in_flight`` says how many records landed.
        """
        if self._flight is None or not self._flight.done():
            return None
        offset = self._flight.result()
        self._flight = None
        return offset
