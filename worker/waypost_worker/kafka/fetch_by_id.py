"""Requests that name a topic by its id, so that no answer is of another topic of the same name (KIP-516, Kafka 3.1).

A topic that is deleted and created again keeps its name and gets a new id. Its log may grow past a reader's position
before the reader asks again, and by name the reader would continue there without an error. By id the broker answers
that it does not know the topic any more. A fetch also says which leader wrote the record before it, so a log that was
cut behind a change of leaders is told apart as well (KIP-595).

Owns the layout of these requests and answers, which aiokafka does not have. No connection, no decisions.
"""

import struct
from io import BytesIO
from typing import Any, Final, NamedTuple
from uuid import UUID

from aiokafka.errors import for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
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
_NO_SESSION: Final = (0, -1)
_DIVERGING_EPOCH_TAG: Final = 0
_DIVERGING_EPOCH: Final = struct.Struct(">iq")
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


class FetchResponse_v13(Response):
    """Records of topics that are named by their ids."""

    API_KEY = 1
    API_VERSION = 13
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("high_watermark", Int64),
                        ("last_stable_offset", Int64),
                        ("log_start_offset", Int64),
                        (
                            "aborted_transactions",
                            CompactArray(
                                ("producer_id", Int64), ("first_offset", Int64), ("tags", TaggedFields)
                            ),
                        ),
                        ("preferred_read_replica", Int32),
                        ("records", CompactBytes),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class FetchRequest_v13(RequestStruct):
    """Names topics by their ids."""

    API_KEY = 1
    API_VERSION = 13
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = FetchResponse_v13
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_time", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("fetch_offset", Int64),
                        ("last_fetched_epoch", Int32),
                        ("log_start_offset", Int64),
                        ("max_bytes", Int32),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        (
            "forgotten_topics_data",
            CompactArray(("topic_id", Uuid), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
        ),
        ("rack_id", CompactString("utf-8")),
        ("tags", TaggedFields),
    )


class FetchByIdRequest(Request[FetchRequest_v13]):
    """Asks for records of one partition from ``offset`` on.

    ``last_epoch`` is the leader epoch of the record before ``offset``, or NO_EPOCH.
    """

    API_KEY = 1

    def __init__(
        self,
        topic_id: UUID,
        partition: int,
        offset: int,
        last_epoch: int,
        *,
        wait_ms: int,
        most_bytes: int,
        isolation_level: int,
    ) -> None:
        self._topic_id = topic_id
        self._partition: tuple[Any, ...] = (partition, NO_EPOCH, offset, last_epoch, -1, most_bytes, {})
        self._wait_ms = wait_ms
        self._most_bytes = most_bytes
        self._isolation_level = isolation_level

    @override
    def build(self, request_struct_class: type[FetchRequest_v13]) -> FetchRequest_v13:
        return request_struct_class(
            -1,  # this is no replica
            self._wait_ms,
            1,
            2 * self._most_bytes,
            self._isolation_level,
            *_NO_SESSION,
            [(self._topic_id, [self._partition], {})],
            [],
            "",
            {},
        )


class Fetched(NamedTuple):
    """What a broker answered for one partition. ``cut_at`` is where its log ends for the reader's leader epoch, if
    that is before the offset that was asked for.
    """

    error_code: int
    high_watermark: int
    stable_end: int
    aborted: list[tuple[int, int]]
    records: bytes
    cut_at: int | None


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


def fetched_in(answer: Any) -> Fetched:
    """The one partition that a FetchByIdRequest was answered with."""
    if answer.error_code or not answer.topics:
        return Fetched(answer.error_code, -1, -1, [], b"", None)
    ((_, ((_, code, high_watermark, stable_end, _, aborted, _, records, tags),), _),) = answer.topics
    cut_at = None
    if (diverging := tags.get(_DIVERGING_EPOCH_TAG)) is not None:
        _, cut_at = _DIVERGING_EPOCH.unpack_from(diverging)
    pairs = [(producer_id, first) for producer_id, first, _ in aborted or ()]
    return Fetched(code, high_watermark, stable_end, pairs, records or b"", cut_at)
