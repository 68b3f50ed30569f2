"""Ids of topics: asked for together, and a broker that is away concerns only those who ask it."""

import asyncio
from collections.abc import Hashable
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError
from tests.support.scripted_cluster import TOPIC, ScriptedCluster
from typing_extensions import override

from waypost_worker.kafka.client import Lane
from waypost_worker.kafka.topic_ids import TopicIds


class OneIsSilent(ScriptedCluster):
    """Broker 2 can't be connected to, which takes until ``given_up``."""

    def __init__(self) -> None:
        super().__init__(2, (1, 2), seconds=0)
        self.given_up = asyncio.Event()

    @override
    async def send(self, node: int, request: Any, lane: Hashable = Lane.CONTROL) -> Any:
        if node == 2:
            await self.given_up.wait()
            raise NodeNotReadyError
        return await super().send(node, request, lane)


@pytest.mark.parametrize("first", [1, 2])
async def test_a_broker_that_is_silent_holds_up_and_fails_only_those_who_ask_it(first: int) -> None:
    cluster = OneIsSilent()
    ids = TopicIds(cluster)
    asked = {node: asyncio.create_task(ids.ask(TOPIC, node)) for node in (first, 3 - first)}
    async with asyncio.timeout(60):
        assert await asked[1] == cluster.topic_id
        assert await ids.ask(TOPIC, 1) == cluster.topic_id
    assert not asked[2].done()
    cluster.given_up.set()
    with pytest.raises(NodeNotReadyError):
        await asked[2]


async def test_all_who_ask_at_the_same_time_get_the_same_answer() -> None:
    cluster = ScriptedCluster(3, seconds=0)
    ids = TopicIds(cluster)
    assert await asyncio.gather(*(ids.ask(TOPIC, 1) for _ in range(3))) == [cluster.topic_id] * 3
    assert cluster.asked_for_ids == 1
