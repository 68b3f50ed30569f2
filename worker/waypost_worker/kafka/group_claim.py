"""Producer epochs of several partitions, claimed at the same time (InitProducerId).

From Kafka 3.0 on, one FindCoordinator request names the ids of all of them (KIP-699). Older brokers are asked for one
id at a time. An InitProducerId request has only one id. Those for a broker are sent in a row, and a broker answers the
requests of a connection one at a time. So their owners wait for the last answer, and then take the next steps together,
with one request for all of them.
"""

import asyncio
import struct
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from aiokafka.errors import CoordinatorNotAvailableError, IncompatibleBrokerVersion, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest
from typing_extensions import override

from waypost_worker.kafka.client import ClusterClient, Lane
from waypost_worker.kafka.flexible import (
    NO_TAGS,
    FlexibleRequest,
    pack_string,
    pack_uvarint,
    unpack_string,
    unpack_tags,
    unpack_uvarint,
)
from waypost_worker.partition.grouping import Grouper
from waypost_worker.partition.ports import Fence

_TRANSACTION: Final = b"\1"  # the kind of the ids
_NODE: Final = struct.Struct(">i")
_PORT_AND_CODE: Final = struct.Struct(">ih")
_THROTTLE_BYTES: Final = 4
# No transaction is ever begun, but a broker refuses a time limit above its own.
_TRANSACTION_MS: Final = 60_000
_MOST_IDS: Final = 1000


class Coordinator(NamedTuple):
    """The broker that coordinates a transactional id, or an error code."""

    transactional_id: str
    node: int
    error_code: int


class FindCoordinators(FlexibleRequest):
    """Requests the coordinators of transactional ids. The answer is a list of :class:`Coordinator`."""

    API_KEY = 10
    API_VERSION = 4

    def __init__(self, transactional_ids: Sequence[str]) -> None:
        self.transactional_ids = transactional_ids

    @override
    def encode(self) -> bytes:
        ids = b"".join(map(pack_string, self.transactional_ids))
        return _TRANSACTION + pack_uvarint(len(self.transactional_ids) + 1) + ids + NO_TAGS

    @override
    def unpack(self, raw: bytes, at: int) -> list[Coordinator]:
        count, at = unpack_uvarint(raw, at + _THROTTLE_BYTES)
        found: list[Coordinator] = []
        for _ in range(count - 1):
            key, at = unpack_string(raw, at)
            (node,) = _NODE.unpack_from(raw, at)
            _, at = unpack_string(raw, at + _NODE.size)  # its host
            port_and_code = _PORT_AND_CODE.unpack_from(raw, at)
            _, at = unpack_string(raw, at + _PORT_AND_CODE.size)  # a message
            _, at = unpack_tags(raw, at)
            found.append(Coordinator(key or "", node, port_and_code[1]))
        return found


class GroupClaimer:
    """The claims of all users of one client."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._takes_several = True  # until a broker turns out to be too old for it
        self._finding: Grouper[str, int] = Grouper(self._find, **_LIMITS)
        self._claiming: dict[int, Grouper[str, Fence]] = {}

    async def claim(self, transactional_id: str) -> Fence:
        """Take a producer id and an epoch above all that were given for this id before, in one attempt.

        Raises:
            KafkaError: A broker answers with an error, or not at all.
        """
        node = await self._coordinator_of(transactional_id)
        if node not in self._claiming:
            self._claiming[node] = Grouper(partial(self._claim, node), **_LIMITS)
        return await self._claiming[node].submit(transactional_id)

    async def _coordinator_of(self, transactional_id: str) -> int:
        if self._takes_several:
            try:
                return await self._finding.submit(transactional_id)
            except (NotImplementedError, IncompatibleBrokerVersion):
                self._takes_several = False
        return await self._client.transaction_coordinator(transactional_id)

    async def _find(self, transactional_ids: Sequence[str]) -> Sequence[int | Exception]:
        request = FindCoordinators(list(dict.fromkeys(transactional_ids)))
        answer: list[Coordinator] = await self._client.send(await self._client.any_node(), request)
        found: dict[str, int | Exception] = {}
        for key, node, error_code in answer:
            found[key] = for_code(error_code)(key) if error_code else node
        return [found.get(one, CoordinatorNotAvailableError(one)) for one in transactional_ids]

    async def _claim(self, node: int, transactional_ids: Sequence[str]) -> Sequence[Fence | Exception]:
        outcomes = await asyncio.gather(
            *(self._claim_one(node, one) for one in transactional_ids), return_exceptions=True
        )
        return [_raised(outcome) if isinstance(outcome, BaseException) else outcome for outcome in outcomes]

    async def _claim_one(self, node: int, transactional_id: str) -> Fence:
        request = InitProducerIdRequest(transactional_id, _TRANSACTION_MS)
        answer: Any = await self._client.send(node, request, Lane.COORDINATION)
        if answer.error_code:
            raise for_code(answer.error_code)(transactional_id)
        return Fence(answer.producer_id, answer.producer_epoch)


_LIMITS: Final = {"most_items": _MOST_IDS, "most_weight": _MOST_IDS, "heavy": _MOST_IDS + 1}


def _raised(error: BaseException) -> Exception:
    if not isinstance(error, Exception):
        raise error
    return error
