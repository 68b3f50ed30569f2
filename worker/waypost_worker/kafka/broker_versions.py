"""Which release of Kafka each broker runs, and which one the cluster acts as.

Brokers do not report their release. They report the supported levels of the feature ``metadata.version`` and the one in
effect (ApiVersions version 3), and each release introduced its own levels. Owns that request, which aiokafka does not
have, and the table.
"""

import inspect
from bisect import bisect
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn
from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0, ResponseHeader_v1
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Schema, TaggedFields
from typing_extensions import override

from waypost import __version__
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly

_METADATA_VERSION: Final = "metadata.version"
# The first level of each release: org.apache.kafka.server.common.MetadataVersion.
_RELEASES: Final = (
    (1, "3.0"),
    (2, "3.1"),
    (3, "3.2"),
    (4, "3.3"),
    (8, "3.4"),
    (9, "3.5"),
    (12, "3.6"),
    (15, "3.7"),
    (20, "3.8"),
    (21, "3.9"),
    (22, "4.0"),
    (26, "4.1"),
    (28, "4.2"),
    (30, "4.3"),
    (31, "4.4"),
)
_INIT_PRODUCER_ID: Final = 22
_SUPPORTED, _FINALIZED = 0, 2  # tags of the response
_KNOWN: Final = frozenset(inspect.signature(create_conn).parameters)


class BrokerVersion(NamedTuple):
    """A broker's answer. ``newest`` and ``in_force`` are levels of ``metadata.version``, None if there are none (a
    cluster with ZooKeeper, or older than 3.0). ``recovers``: a producer may request a new epoch with its old one, which
    came with Kafka 2.5.
    """

    node: int
    newest: int | None
    in_force: int | None
    recovers: bool


def release(level: int) -> str:
    """The release that brought a level of ``metadata.version``."""
    if level > _RELEASES[-1][0]:
        return f"{_RELEASES[-1][1]} or newer"
    return _RELEASES[max(0, bisect([first for first, _ in _RELEASES], level) - 1)][1]


async def broker_versions(connection: Connection) -> list[BrokerVersion]:
    """Ask every broker. UnavailableError if one can't be reached."""
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        async with kafka_errors("asking brokers for their versions"):
            await admin.start()
            brokers = (await admin.describe_cluster())["brokers"]
            return [
                await _ask(broker["node_id"], broker["host"], broker["port"], connection.options())
                for broker in sorted(brokers, key=lambda broker: int(broker["node_id"]))
            ]
    finally:
        await quietly(admin.close(), 1.0)


async def _ask(node: int, host: str, port: int, options: Mapping[str, Any]) -> BrokerVersion:
    own = {name: value for name, value in options.items() if name in _KNOWN}
    connection = await create_conn(host, port, **own)
    try:
        answer: Any = await connection.send(_ApiVersions())
    except NotImplementedError:  # it knows no version 3 of this request, so it is older than Kafka 2.4
        return BrokerVersion(node, None, None, recovers=False)
    finally:
        connection.close()
    most = {key: high for key, _, high, _ in answer.api_versions}
    supported = {name: high for name, _, high, _ in _features(answer.tags, _SUPPORTED)}
    finalized = {name: high for name, high, _, _ in _features(answer.tags, _FINALIZED)}
    return BrokerVersion(
        node,
        supported.get(_METADATA_VERSION),
        finalized.get(_METADATA_VERSION),
        recovers=most.get(_INIT_PRODUCER_ID, 0) >= 3,
    )


def _features(tags: Mapping[int, bytes], tag: int) -> list[Any]:
    """(name, a level, a level, tags) of each: supported ones begin with the lowest, finalized ones with the highest."""
    return _FEATURES.decode(BytesIO(tags[tag])) or [] if tag in tags else []


_FEATURES: Final = CompactArray(
    ("name", CompactString("utf-8")), ("one", Int16), ("other", Int16), ("tags", TaggedFields)
)


class _ApiVersionsResponse(Response):
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "api_versions",
            CompactArray(("api_key", Int16), ("low", Int16), ("high", Int16), ("tags", TaggedFields)),
        ),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class _ApiVersionsRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 18
    API_VERSION = 3
    RESPONSE_TYPE = _ApiVersionsResponse
    SCHEMA = Schema(
        ("software_name", CompactString("utf-8")),
        ("software_version", CompactString("utf-8")),
        ("tags", TaggedFields),
    )

    @override
    def parse_response_header(self, read_buffer: BytesIO | bytes) -> ResponseHeader_v0 | ResponseHeader_v1:
        """Without tags, unlike every other flexible response: a client must be able to read it in any case."""
        return ResponseHeader_v0.decode(read_buffer)


class _ApiVersions(Request[_ApiVersionsRequest]):
    API_KEY = 18

    @override
    def build(self, request_struct_class: type[_ApiVersionsRequest]) -> _ApiVersionsRequest:
        """With who asks, which brokers count."""
        return request_struct_class("waypost", __version__, {})
