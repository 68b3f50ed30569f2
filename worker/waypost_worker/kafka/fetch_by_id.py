"""Requests that name a topic by its id, so that no answer is of another topic of the same name (KIP-516, Kafka 3.1).

A topic that is deleted and created again keeps its name and gets a new id. Its log may grow past a reader's position
before the reader's next request, and by name the reader would continue there without an error. By id, the broker
answers that it no longer knows the topic. A fetch also says which leader wrote the previous record, so a log that was
truncated after a change of leaders is recognized as well (KIP-595).

Owns the layout of these requests and answers, which aiokafka does not have. No connection, no decisions.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from aiokafka.errors import for_code
from typing_extensions import override

from waypost_worker.kafka.flexible import (
    NO_TAGS,
    FlexibleRequest,
    pack_string,
    pack_uvarint,
    unpack_string,
    unpack_tags,
    unpack_uvarint,
)

#: Error codes for a topic id that the broker does not know, or that is not the one of its log.
UNKNOWN_TOPIC_ID: Final = 100
INCONSISTENT_TOPIC_ID: Final = 103
#: No leader epoch: of the first record of a log, or of a record that was never read.
NO_EPOCH: Final = -1

_UNKNOWN_TOPIC: Final = 3
_DIVERGING_EPOCH_TAG: Final = 0
_DIVERGING_EPOCH: Final = struct.Struct(">iq")
# Replica, longest wait, least and most bytes, isolation level, session and its epoch.
_REQUEST: Final = struct.Struct(">iiiibii")
_NO_REPLICA, _NO_SESSION, _NO_SESSION_EPOCH, _ANY_EPOCH, _LEAST_BYTES = -1, 0, -1, -1, 1
# Number, leader epoch, offset, epoch of the record before it, log start (of a replica), most bytes, no tags.
_ASKED: Final = struct.Struct(">iiqiqib")
_REQUEST_END: Final = b"\1\1\0"  # no forgotten topics, no rack, no tags
_RESPONSE: Final = struct.Struct(">ihi")  # throttling, error, session
# Number, error, high watermark, last stable offset, log start.
_FETCHED: Final = struct.Struct(">ihqqq")
# The same with what follows if nothing came: aborted transactions, replica, records, tags.
_NOTHING: Final = struct.Struct(">ihqqqBiBB")
_ABORTED: Final = struct.Struct(">qq")
_REPLICA_BYTES: Final = 4
_ID_BYTES: Final = 16
_NONE_ABORTED: Final[Sequence[tuple[int, int]]] = ()
_UNNAMED: Final = UUID(int=0)
_ONE: Final = b"\2"
_CREATE_NOTHING, _NO_OPERATIONS = b"\0", b"\0"
_CODE: Final = struct.Struct(">h")
_THROTTLE_BYTES, _INT_BYTES, _BOOL_BYTES = 4, 4, 1
# Error, number, leader, leader epoch.
_PARTITION_BYTES: Final = 14


class TopicsAnswer(NamedTuple):
    """Error code, name and id of each topic."""

    topics: list[tuple[int, str | None, UUID]]


class TopicIdRequest(FlexibleRequest):
    """Asks for the id of a topic, which only brokers since Kafka 3.1 can tell."""

    API_KEY = 3
    API_VERSION = 12

    def __init__(self, topic: str) -> None:
        self._topic = topic

    @override
    def encode(self) -> bytes:
        return b"".join(
            (
                _ONE,
                _UNNAMED.bytes,
                pack_string(self._topic),
                NO_TAGS,
                _CREATE_NOTHING,
                _NO_OPERATIONS,
                NO_TAGS,
            )
        )

    @override
    def unpack(self, raw: bytes, at: int) -> TopicsAnswer:
        at = _skip_brokers(raw, at + _THROTTLE_BYTES)
        _, at = unpack_string(raw, at)  # the cluster's id
        count, at = unpack_uvarint(raw, at + _INT_BYTES)  # after the controller
        topics: list[tuple[int, str | None, UUID]] = []
        for _ in range(count - 1):
            (error_code,) = _CODE.unpack_from(raw, at)
            name, at = unpack_string(raw, at + _CODE.size)
            topics.append((error_code, name, UUID(bytes=raw[at : at + _ID_BYTES])))
            at = _skip_partitions(raw, at + _ID_BYTES + _BOOL_BYTES)
            _, at = unpack_tags(raw, at + _INT_BYTES)  # after the operations
        return TopicsAnswer(topics)


class Asked(NamedTuple):
    """The request for a partition. ``last_epoch`` is the leader epoch of the record before ``offset``, or NO_EPOCH."""

    topic_id: UUID
    partition: int
    offset: int
    last_epoch: int
    most_bytes: int


class Fetched(NamedTuple):
    """A broker's answer for one partition. ``cut_at`` is where its log ends for the reader's leader epoch, if that is
    before the requested offset.
    """

    error_code: int
    high_watermark: int
    stable_end: int
    aborted: Sequence[tuple[int, int]]
    records: bytes
    cut_at: int | None


class FetchAnswer(NamedTuple):
    """A broker's answer, by id and number of the partition. Partitions with an error in common are not listed."""

    error_code: int
    partitions: dict[tuple[UUID, int], Fetched]


class FetchResponse(NamedTuple):
    """A broker's answer to a fetch."""

    answer: FetchAnswer


class FetchByIdRequest(FlexibleRequest):
    """Requests records of partitions, of ``most_bytes`` in total, from a broker since Kafka 3.1. It fills its answer in
    the order of the request, and waits for up to ``wait_ms`` while it has nothing.
    """

    API_KEY = 1
    API_VERSION = 13

    def __init__(
        self, partitions: Iterable[Asked], *, wait_ms: int, most_bytes: int, isolation_level: int
    ) -> None:
        self.partitions = partitions
        self._wait_ms = wait_ms
        self._most_bytes = most_bytes
        self._isolation_level = isolation_level

    @override
    def encode(self) -> bytes:
        start = (
            _NO_REPLICA,
            self._wait_ms,
            _LEAST_BYTES,
            self._most_bytes,
            self._isolation_level,
            _NO_SESSION,
            _NO_SESSION_EPOCH,
        )
        topics: dict[UUID, list[bytes]] = {}
        for topic_id, partition, offset, last_epoch, most_bytes in self.partitions:
            packed = _ASKED.pack(partition, _ANY_EPOCH, offset, last_epoch, _NO_REPLICA, most_bytes, 0)
            topics.setdefault(topic_id, []).append(packed)
        body = [_REQUEST.pack(*start), pack_uvarint(len(topics) + 1)]
        for topic_id, packed_partitions in topics.items():
            body += [topic_id.bytes, pack_uvarint(len(packed_partitions) + 1), *packed_partitions, NO_TAGS]
        return b"".join((*body, _REQUEST_END))

    @override
    def unpack(self, raw: bytes, at: int) -> FetchResponse:
        return FetchResponse(unpack_answer(raw, at))


def unpack_answer(raw: bytes, at: int) -> FetchAnswer:
    """Return what a fetch response of version 13 holds from ``at`` on. Raises struct.error or IndexError if it is cut
    off.
    """
    _, error_code, _ = _RESPONSE.unpack_from(raw, at)
    topics, at = unpack_uvarint(raw, at + _RESPONSE.size)
    partitions: dict[tuple[UUID, int], Fetched] = {}
    for _ in range(topics - 1):
        topic_id = UUID(bytes=raw[at : at + _ID_BYTES])
        count, at = unpack_uvarint(raw, at + _ID_BYTES)
        for _ in range(count - 1):
            number, code, high_watermark, stable_end, _, aborted, _, size, tags = _NOTHING.unpack_from(
                raw, at
            )
            if aborted <= 1 and size <= 1 and not tags:  # nearly always of nearly all partitions
                fetched = Fetched(code, high_watermark, stable_end, _NONE_ABORTED, b"", None)
                at += _NOTHING.size
            else:
                fetched, at = _unpack_rest(raw, at + _FETCHED.size, code, high_watermark, stable_end)
            partitions[topic_id, number] = fetched
        _, at = unpack_tags(raw, at)
    return FetchAnswer(error_code, partitions)


def _unpack_rest(raw: bytes, at: int, code: int, high_watermark: int, stable_end: int) -> tuple[Fetched, int]:
    aborted, at = _unpack_aborted(raw, at)
    size, at = unpack_uvarint(raw, at + _REPLICA_BYTES)
    end = at + max(0, size - 1)
    tags, behind = unpack_tags(raw, end)
    diverging = tags.get(_DIVERGING_EPOCH_TAG)
    cut_at = None if diverging is None else _DIVERGING_EPOCH.unpack_from(diverging)[1]
    return Fetched(code, high_watermark, stable_end, aborted, raw[at:end], cut_at), behind


def _unpack_aborted(raw: bytes, at: int) -> tuple[tuple[tuple[int, int], ...], int]:
    count, at = unpack_uvarint(raw, at)
    aborted: list[tuple[int, int]] = []
    for _ in range(count - 1):
        aborted.append(_ABORTED.unpack_from(raw, at))
        _, at = unpack_tags(raw, at + _ABORTED.size)
    return tuple(aborted), at


def _skip_brokers(raw: bytes, at: int) -> int:
    count, at = unpack_uvarint(raw, at)
    for _ in range(count - 1):
        _, at = unpack_string(raw, at + _INT_BYTES)  # after the broker's id: its host
        _, at = unpack_string(raw, at + _INT_BYTES)  # after its port: its rack
        _, at = unpack_tags(raw, at)
    return at


def _skip_partitions(raw: bytes, at: int) -> int:
    count, at = unpack_uvarint(raw, at)
    for _ in range(count - 1):
        at += _PARTITION_BYTES
        for _ in range(3):  # replicas: all, those in sync, those that are offline
            replicas, at = unpack_uvarint(raw, at)
            at += max(0, replicas - 1) * _INT_BYTES
        _, at = unpack_tags(raw, at)
    return at


def topic_id_in(answer: TopicsAnswer) -> UUID | None:
    """The id that a TopicIdRequest was answered with; None if there is no such topic. Other errors are raised."""
    (topic,) = answer.topics
    error_code, name, topic_id = topic
    if error_code == _UNKNOWN_TOPIC:
        return None
    if error_code:
        raise for_code(error_code)(f"asking for the id of {name}")
    return topic_id
