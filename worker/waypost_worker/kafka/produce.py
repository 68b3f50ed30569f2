"""Produce requests that carry batches of several partitions, and what each of them was answered with.

A Produce request outside transactions may mix producers: the header of each batch contains id, epoch and sequence, and
a leader validates each batch separately. Owns the contents of requests and answers. No connection, no retries.
"""

import struct
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.protocol.api import Request
from aiokafka.protocol.produce import ProduceRequest_v7
from typing_extensions import override

#: The largest batch that a results topic takes.
MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
_ALL_REPLICAS: Final = -1
_HEAD: Final = struct.Struct(">hhii")
_NO_ID: Final = -1
_NAME_LENGTH: Final = struct.Struct(">h")
_COUNT: Final = struct.Struct(">i")
_PARTITION: Final = struct.Struct(">ii")


class NotSentError(KafkaError):
    """A batch was not in the request, or its partition not in the answer."""

    retriable = True


class OutgoingBatch:
    """A batch on its way to a partition, for this many seconds. ``wanted`` is cleared when its append ends, for any
    reason.
    """

    def __init__(self, partition: TopicPartition, data: bytearray, seconds: float) -> None:
        self.partition = partition
        self.data = data
        self.wanted = True
        self._until = boottime() + seconds, walltime() + seconds

    @property
    def may_be_sent(self) -> bool:
        """Return whether somebody waits for it, and its time is not up.

        Boot time advances while a machine is suspended, when the event loop's time does not. The wall clock catches up
        after a pause by the hypervisor.
        """
        return self.wanted and boottime() < self._until[0] and walltime() < self._until[1]


class Answer(NamedTuple):
    """A leader's answer about a batch. ``time_ms`` is when it accepted the batch, or -1 if the topic does not use the
    broker's time.
    """

    error_code: int
    offset: int
    time_ms: int


class Message:
    """A request in pieces, to which aiokafka's connection adds a header and then its length, with ``+`` as to bytes.

    Adding bytes would copy all batches each time, to memory that the system has to provide first. So the header is
    another piece, and only the length joins them.
    """

    def __init__(self, pieces: Sequence[bytes | bytearray], *, has_header: bool = False) -> None:
        self._pieces = pieces
        self._has_header = has_header

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def __radd__(self, before: bytes) -> "bytes | Message":
        pieces = (before, *self._pieces)
        return b"".join(pieces) if self._has_header else Message(pieces, has_header=True)


class ProduceBatches(ProduceRequest_v7):
    """A request of Kafka 2.1 and newer, sent with one copy of each batch.

    aiokafka copies a batch at each level of its schema, which costs more than building it from its records.
    """

    @override
    def encode(self) -> Any:
        topics = self.get_item("topics")
        acks, timeout_ms = self.get_item("required_acks"), self.get_item("timeout")
        pieces: list[bytes | bytearray] = [_HEAD.pack(_NO_ID, acks, timeout_ms, len(topics))]
        for topic, batches in topics:
            name = topic.encode()
            pieces.append(_NAME_LENGTH.pack(len(name)) + name + _COUNT.pack(len(batches)))
            for partition, data in batches:
                pieces += (_PARTITION.pack(partition, len(data)), data)
        return Message(pieces)


class ProduceGroup(Request[ProduceBatches]):
    """Appends a batch to each of several partitions. The answer comes once all replicas in sync have all of them.

    Which batches are still to be sent is decided in ``build``, which a connection calls right before it writes. A
    connection may have to be opened first, which can take longer than an append may. A second batch of a partition
    waits for another request: of two in the same request, brokers would append one and answer for both.
    """

    API_KEY = 0

    def __init__(self, batches: Sequence[OutgoingBatch], timeout_ms: int) -> None:
        self._batches = batches
        self._timeout_ms = timeout_ms
        self._sent: dict[TopicPartition, OutgoingBatch] = {}

    @override
    def build(self, request_struct_class: type[ProduceBatches]) -> ProduceBatches:
        topics: dict[str, list[tuple[int, bytearray]]] = {}
        for batch in self._batches:
            if batch.may_be_sent and batch.partition not in self._sent:
                self._sent[batch.partition] = batch
                topic, partition = batch.partition
                topics.setdefault(topic, []).append((partition, batch.data))
        if not topics:
            raise NotSentError("nobody is waiting for these appends")
        return request_struct_class(None, _ALL_REPLICAS, self._timeout_ms, list(topics.items()))

    def outcomes(self, response: Any) -> list[Answer | Exception]:
        """Return the answer for each batch of this group, or NotSentError."""
        answers = {
            TopicPartition(topic, partition): Answer(code, offset, time_ms)
            for topic, partitions in response.topics
            for partition, code, offset, time_ms, *_ in partitions
        }
        return [
            answers.get(batch.partition, NotSentError("the broker did not answer for this partition"))
            if self._sent.get(batch.partition) is batch
            else NotSentError("another batch of this partition was sent")
            for batch in self._batches
        ]


def boottime() -> float:
    """Return seconds since boot."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def walltime() -> float:
    """Return seconds since 1970."""
    return time.time()
