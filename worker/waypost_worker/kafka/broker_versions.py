"""Which release of Kafka each broker runs, and which one the cluster acts as.

Brokers do not report their release. They report the supported levels of the feature ``metadata.version`` and the one in
effect (ApiVersions version 3), and each release introduced its own levels. Owns that request, which aiokafka does not
have, and the table.
"""

import inspect
import struct
from bisect import bisect
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn
from typing_extensions import override

from waypost import __version__
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.kafka.flexible import (
    NO_TAGS,
    FlexibleRequest,
    pack_string,
    unpack_string,
    unpack_tags,
    unpack_uvarint,
)

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
_REQUEST: Final = struct.Struct(">hhh")  # key, oldest and newest version
_LEVELS: Final = struct.Struct(">hh")
_ERROR_BYTES, _THROTTLE_BYTES = 2, 4
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
        request: Any = _ApiVersions()
        answer: _Versions = await connection.send(request)
    except NotImplementedError:  # it knows no version 3 of this request, so it is older than Kafka 2.4
        return BrokerVersion(node, None, None, recovers=False)
    finally:
        connection.close()
    supported, finalized = answer.levels(_SUPPORTED), answer.levels(_FINALIZED)
    return BrokerVersion(
        node,
        max(supported.get(_METADATA_VERSION, ()), default=None),
        max(finalized.get(_METADATA_VERSION, ()), default=None),
        recovers=answer.requests.get(_INIT_PRODUCER_ID, 0) >= 3,
    )


class _Versions(NamedTuple):
    """The newest version of each request, and tags."""

    requests: dict[int, int]
    tags: Mapping[int, bytes]

    def levels(self, tag: int) -> dict[str, tuple[int, int]]:
        """Return the lowest and the highest level of each feature, in any order."""
        raw = self.tags.get(tag)
        found: dict[str, tuple[int, int]] = {}
        if raw is not None:
            count, at = unpack_uvarint(raw, 0)
            for _ in range(count - 1):
                name, at = unpack_string(raw, at)
                found[name or ""] = _LEVELS.unpack_from(raw, at)
                _, at = unpack_tags(raw, at + _LEVELS.size)
        return found


class _ApiVersions(FlexibleRequest):
    """With who asks, which brokers count."""

    API_KEY = 18
    API_VERSION = 3
    RESPONSE_HAS_TAGS = False  # a client must be able to read it in any case

    @override
    def encode(self) -> bytes:
        return pack_string("waypost") + pack_string(__version__) + NO_TAGS

    @override
    def unpack(self, raw: bytes, at: int) -> _Versions:
        count, at = unpack_uvarint(raw, at + _ERROR_BYTES)
        requests: dict[int, int] = {}
        for _ in range(count - 1):
            key, _, requests[key] = _REQUEST.unpack_from(raw, at)
            _, at = unpack_tags(raw, at + _REQUEST.size)
        tags, _ = unpack_tags(raw, at + _THROTTLE_BYTES)
        return _Versions(requests, tags)
