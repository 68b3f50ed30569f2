"""Claiming an epoch from the coordinator of a transactional id, which may be unavailable for a moment."""

from collections.abc import Hashable
from typing import Any

import pytest
from aiokafka.errors import (
    ConcurrentTransactions,
    InvalidTransactionTimeout,
    NodeNotReadyError,
    NotCoordinatorError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.transaction import InitProducerIdResponse_v0
from tests.unit.scripted_leaders import ScriptedLeaders

from waypost_worker.kafka import fenced_producer
from waypost_worker.kafka.client import Lane
from waypost_worker.kafka.fenced_producer import claim_epoch
from waypost_worker.kafka.group_claim import Coordinator as Found
from waypost_worker.kafka.group_claim import FindCoordinators
from waypost_worker.partition.ports import (
    Fence,
    RefusedError,
    UnavailableError,
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fenced_producer, "_BACKOFF", 0)


class Coordinator(ScriptedLeaders):
    """Answers InitProducerId with these codes, then with success; an error is raised instead."""

    def __init__(self, answers: list[int | Exception], request_timeout: float = 10.0) -> None:
        super().__init__(request_timeout)
        self.answers = answers
        self.lookups = 0

    async def any_node(self) -> int:
        return 4

    async def send(self, node: int, request: object, lane: Hashable = Lane.CONTROL) -> Any:
        if isinstance(request, FindCoordinators):
            assert (node, request.transactional_ids) == (4, ["waypost.3"])
            self.lookups += 1
            return [Found("waypost.3", 5, 0)]
        assert node == 5
        code = self.answers.pop(0) if self.answers else 0
        if isinstance(code, Exception):
            raise code
        found = (-1, -1) if code else (4000, 12)
        return InitProducerIdResponse_v0(0, code, *found)


@pytest.mark.parametrize(
    "error",
    [
        ConcurrentTransactions.errno,
        NotCoordinatorError.errno,
        14,
        15,
        NodeNotReadyError(),
        OSError(),
        KeyError(),
    ],
    ids=str,
)
async def test_a_claim_is_tried_again_at_the_coordinator_of_that_moment(error: int | Exception) -> None:
    cluster = Coordinator([error, error])
    assert await claim_epoch(cluster, "waypost.3") == Fence(4000, 12)
    assert cluster.lookups == 3


async def test_a_claim_that_may_not_be_made_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"'waypost\.3'.*give the worker's principal the missing ACL"):
        await claim_epoch(Coordinator([TransactionalIdAuthorizationFailed.errno]), "waypost.3")


async def test_a_claim_that_can_never_succeed_is_not_tried_again() -> None:
    cluster = Coordinator([InvalidTransactionTimeout.errno])
    with pytest.raises(UnavailableError, match="InvalidTransactionTimeout"):
        await claim_epoch(cluster, "waypost.3")
    assert cluster.lookups == 1


async def test_a_claim_gives_up_when_its_time_is_up() -> None:
    cluster = Coordinator([ConcurrentTransactions.errno] * 100_000, request_timeout=0.02)
    with pytest.raises(UnavailableError, match=r"claiming .*ConcurrentTransactions"):
        await claim_epoch(cluster, "waypost.3")
