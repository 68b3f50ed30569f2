"""Producer epochs of several transactional ids, claimed at the same time."""

import asyncio
from collections.abc import Hashable
from io import BytesIO
from typing import Any

import pytest
from aiokafka.errors import (
    ConcurrentTransactions,
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.transaction import InitProducerIdRequest_v0, InitProducerIdResponse_v0

from waypost_worker.kafka.client import ClusterClient, Lane
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.group_claim import (
    Coordinator,
    FindCoordinators,
    GroupClaimer,
)
from waypost_worker.partition.ports import Fence


class Brokers(ClusterClient):
    """Broker N + 10 coordinates the ids ``w.N`` and ``w.N.…``, and gives (100 + N, claims so far) for them.

    ``codes`` are error codes of FindCoordinator and ``claim_codes`` of InitProducerId by id. Brokers know
    FindCoordinator up to version ``newest``.
    """

    def __init__(self, newest: int = 4) -> None:
        super().__init__(Connection("scripted:1"))
        self.newest = newest
        self.asked: list[list[str]] = []
        self.asked_alone: list[str] = []
        self.claimed: list[str] = []
        self.codes: dict[str, int] = {}
        self.claim_codes: dict[str, int] = {}
        self.failures: dict[str, Exception] = {}
        self.under_way, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()

    async def any_node(self) -> int:
        return 3

    async def transaction_coordinator(self, transactional_id: str) -> int:
        self.asked_alone.append(transactional_id)
        return coordinator(transactional_id)

    async def send(self, node: int, request: Any, lane: Hashable = Lane.CONTROL) -> Any:
        if isinstance(request, FindCoordinators):
            assert (node, lane) == (3, Lane.CONTROL)
            return self._find(request)
        assert lane == Lane.COORDINATION
        transactional_id = request.build(InitProducerIdRequest_v0).get_item("transactional_id")
        assert node == coordinator(transactional_id)
        self.claimed.append(transactional_id)
        self.under_way.set()
        await self.open.wait()
        if transactional_id in self.failures:
            raise self.failures[transactional_id]
        code = self.claim_codes.get(transactional_id, 0)
        epoch = self.claimed.count(transactional_id)
        return InitProducerIdResponse_v0(0, code, 90 + node, epoch)

    def _find(self, request: FindCoordinators) -> Any:
        ids = request.prepare({FindCoordinators.API_KEY: (0, self.newest)}).transactional_ids
        self.asked.append(list(ids))
        if "finding" in self.failures:
            raise self.failures["finding"]
        return [
            Coordinator(one, coordinator(one), self.codes.get(one, 0))
            for one in reversed(ids)
            if one != "w.0"
        ]


def coordinator(transactional_id: str) -> int:
    return 10 + int(transactional_id.split(".")[1])


async def claimed(brokers: Brokers, *ids: str) -> list[Any]:
    """Claim at the same time; the fence or the error of each."""
    claimer = brokers.shared(GroupClaimer)
    return await asyncio.gather(*map(claimer.claim, ids), return_exceptions=True)


async def test_ids_that_are_claimed_together_are_looked_up_in_one_request() -> None:
    brokers = Brokers()
    assert await claimed(brokers, "w.1.a", "w.2", "w.1.b", "w.3") == [
        Fence(101, 1),
        Fence(102, 1),
        Fence(101, 1),
        Fence(103, 1),
    ]
    assert brokers.asked == [["w.1.a", "w.2", "w.1.b", "w.3"]]
    assert sorted(brokers.claimed) == ["w.1.a", "w.1.b", "w.2", "w.3"]


async def test_two_claims_of_one_id_get_an_epoch_each() -> None:
    brokers = Brokers()
    found = await claimed(brokers, "w.1", "w.1")
    assert brokers.asked == [["w.1"]]
    assert brokers.claimed == ["w.1", "w.1"]
    assert {fence.producer_id for fence in found} == {101}


async def test_all_claims_at_a_broker_are_sent_before_the_first_is_answered_and_end_together() -> None:
    brokers = Brokers()
    brokers.open.clear()
    claiming = asyncio.create_task(claimed(brokers, "w.1.a", "w.1.b", "w.1.c"))
    await brokers.under_way.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert brokers.claimed == ["w.1.a", "w.1.b", "w.1.c"]
    assert not claiming.done()
    brokers.open.set()
    assert await claiming == [Fence(101, 1)] * 3


async def test_each_id_has_its_own_error() -> None:
    brokers = Brokers()
    brokers.codes = {"w.2": TransactionalIdAuthorizationFailed.errno}
    brokers.claim_codes = {"w.1.b": ConcurrentTransactions.errno}
    brokers.failures = {"w.1.c": KafkaConnectionError("it broke")}
    first, refused, missing, busy, broken, last = await claimed(
        brokers, "w.1.a", "w.2", "w.0", "w.1.b", "w.1.c", "w.3"
    )
    assert (first, last) == (Fence(101, 1), Fence(103, 1))
    assert isinstance(refused, TransactionalIdAuthorizationFailed)
    assert isinstance(missing, GroupCoordinatorNotAvailableError)
    assert missing.retriable
    assert isinstance(busy, ConcurrentTransactions)
    assert isinstance(broken, KafkaConnectionError)


async def test_a_lookup_that_fails_fails_for_all() -> None:
    brokers = Brokers()
    brokers.failures = {"finding": KafkaConnectionError("it broke")}
    assert [type(one) for one in await claimed(brokers, "w.1", "w.2")] == [KafkaConnectionError] * 2


@pytest.mark.parametrize("newest", [1, 3])
async def test_older_brokers_are_asked_one_by_one_and_not_offered_it_again(newest: int) -> None:
    brokers = Brokers(newest)
    assert await claimed(brokers, "w.1", "w.2") == [Fence(101, 1), Fence(102, 1)]
    assert await claimed(brokers, "w.3") == [Fence(103, 1)]
    assert brokers.asked == []
    assert brokers.asked_alone == ["w.1", "w.2", "w.3"]


async def test_request_and_answer_are_those_of_the_protocol() -> None:
    """KIP-699: type, compact array of ids; throttling, coordinators with an error each."""
    request = FindCoordinators(["w.1", "w.22"]).prepare({FindCoordinators.API_KEY: (0, 6)})
    assert request.encode() == b"\1" + b"\3" + b"\4w.1" + b"\5w.22" + b"\0"
    answer = (
        b"\0\0\0\0"
        + b"\3"
        + (b"\4w.1" + b"\0\0\0\5" + b"\2h" + b"\0\0\x23\x84" + b"\0\0" + b"\0" + b"\0")
        + (b"\5w.22" + b"\xff\xff\xff\xff" + b"\1" + b"\xff\xff\xff\xff" + b"\0\x0f" + b"\4why" + b"\0")
        + b"\0"
    )
    assert request.decode(BytesIO(answer)) == [Coordinator("w.1", 5, 0), Coordinator("w.22", -1, 15)]
