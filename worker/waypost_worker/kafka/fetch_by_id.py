"""Requests that name a topic by its id, so that no answer is of another topic of the same name (KIP-516, Kafka 3.1).

A topic that is deleted and created again keeps its name and gets a new id. Its log may grow past a reader's position
before the reader's next request, and by name the reader would continue there without an error. By id, the broker
answers that it no longer knows the topic. A fetch also says which leader wrote the previous record, so a log that was
truncated after a change of leaders is recognized as well (KIP-595).

Owns the layout of these requests and answers, which aiokafka does not have. No connection, no decisions.

A fetch is packed and unpacked here as a whole, since aiokafka calls several functions for each field: for 96 partitions
that takes five times as long.
"""

import struct
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any, Final, NamedTuple
from uuid import UUID

from aiokafka.errors import for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from typing_extensions import override

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
_NO_TAGS: Final = b"\0"
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


class Uuid(AbstractType[UUID]):
    """16 bytes."""

    @classmethod
    @override
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    @override
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


class MetadataResponse_v12(Response):
    """Topics with their ids."""

    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class MetadataRequest_v12(RequestStruct):
    """Names topics, or gives their ids."""

    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponse_v12
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicIdRequest(Request[MetadataRequest_v12]):
    """Asks for the id of a topic. Raises NotImplementedError when it is sent to a broker older than 3.1."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    @override
    def build(self, request_struct_class: type[MetadataRequest_v12]) -> MetadataRequest_v12:
        return request_struct_class([(_UNNAMED, self._topic, {})], False, False, {})


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


class _Body(AbstractType[bytes]):
    """A request that is packed already."""

    @classmethod
    @override
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    @override
    def decode(cls, data: BytesIO) -> bytes:
        return data.read()


class _Answer(AbstractType[FetchAnswer]):
    """Fetch response of version 13."""

    @classmethod
    @override
    def encode(cls, value: FetchAnswer) -> bytes:
        raise NotImplementedError

    @classmethod
    @override
    def decode(cls, data: BytesIO) -> FetchAnswer:
        return unpack_answer(data.getvalue(), data.tell())


class FetchResponse_v13(Response):
    """Records of topics that are named by their ids."""

    API_KEY = 1
    API_VERSION = 13
    SCHEMA = Schema(("answer", _Answer))


class FetchRequest_v13(RequestStruct):
    """Names topics by their ids."""

    API_KEY = 1
    API_VERSION = 13
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = FetchResponse_v13
    SCHEMA = Schema(("body", _Body))


class FetchByIdRequest(Request[FetchRequest_v13]):
    """Requests records of partitions, of ``most_bytes`` in total. A broker fills its answer in the order of the
    request, and waits for up to ``wait_ms`` while it has nothing. Raise NotImplementedError if it is sent to a broker
    older than 3.1.
    """

    API_KEY = 1

    def __init__(
        self, partitions: Iterable[Asked], *, wait_ms: int, most_bytes: int, isolation_level: int
    ) -> None:
        self.partitions = partitions
        self._wait_ms = wait_ms
        self._most_bytes = most_bytes
        self._isolation_level = isolation_level

    @override
    def build(self, request_struct_class: type[FetchRequest_v13]) -> FetchRequest_v13:
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
        body = [_REQUEST.pack(*start), _uvarint(len(topics) + 1)]
        for topic_id, packed_partitions in topics.items():
            body += [topic_id.bytes, _uvarint(len(packed_partitions) + 1), *packed_partitions, _NO_TAGS]
        return request_struct_class(b"".join((*body, _REQUEST_END)))


def unpack_answer(raw: bytes, at: int) -> FetchAnswer:
    """Return what a fetch response of version 13 holds from ``at`` on. Raises struct.error or IndexError if it is cut
    off.
    """
    _, error_code, _ = _RESPONSE.unpack_from(raw, at)
    topics, at = _unpack_uvarint(raw, at + _RESPONSE.size)
    partitions: dict[tuple[UUID, int], Fetched] = {}
    for _ in range(topics - 1):
        topic_id = UUID(bytes=raw[at : at + _ID_BYTES])
        count, at = _unpack_uvarint(raw, at + _ID_BYTES)
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
        _, at = _unpack_tags(raw, at)
    return FetchAnswer(error_code, partitions)


def _unpack_rest(raw: bytes, at: int, code: int, high_watermark: int, stable_end: int) -> tuple[Fetched, int]:
    aborted, at = _unpack_aborted(raw, at)
    size, at = _unpack_uvarint(raw, at + _REPLICA_BYTES)
    end = at + max(0, size - 1)
    tags, behind = _unpack_tags(raw, end)
    diverging = tags.get(_DIVERGING_EPOCH_TAG)
    cut_at = None if diverging is None else _DIVERGING_EPOCH.unpack_from(diverging)[1]
    return Fetched(code, high_watermark, stable_end, aborted, raw[at:end], cut_at), behind


def _unpack_aborted(raw: bytes, at: int) -> tuple[tuple[tuple[int, int], ...], int]:
    count, at = _unpack_uvarint(raw, at)
    aborted: list[tuple[int, int]] = []
    for _ in range(count - 1):
        aborted.append(_ABORTED.unpack_from(raw, at))
        _, at = _unpack_tags(raw, at + _ABORTED.size)
    return tuple(aborted), at


def _unpack_tags(raw: bytes, at: int) -> tuple[dict[int, bytes], int]:
    count, at = _unpack_uvarint(raw, at)
    tags: dict[int, bytes] = {}
    for _ in range(count):
        tag, at = _unpack_uvarint(raw, at)
        size, at = _unpack_uvarint(raw, at)
        tags[tag] = raw[at : at + size]
        at += size
    return tags, at


def _unpack_uvarint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := raw[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1


def _uvarint(value: int) -> bytes:
    packed = bytearray()
    while value > 0x7F:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def topic_id_in(answer: Any) -> UUID | None:
    """The id that a TopicIdRequest was answered with; None if there is no such topic. Other errors are raised."""
    (topic,) = answer.topics
    error_code, name, topic_id, *_ = topic
    if error_code == _UNKNOWN_TOPIC:
        return None
    if error_code:
        raise for_code(error_code)(f"asking for the id of {name}")
    found: UUID = topic_id
    return found
