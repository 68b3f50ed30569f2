"""Connections to a cluster in memory: leaders as a test names them, and requests that a subclass answers."""

import asyncio
from collections.abc import Callable

from aiokafka.cluster import ClusterMetadata
from aiokafka.protocol.metadata import MetadataResponse_v1
from tests.support.timeouts import PATIENCE


class ScriptedConnections:
    """Takes the place of ClusterConnections, for clients of one topic with two brokers. ``leaders`` are ids of brokers
    by partition. A subclass sets ``came`` when something happens that a test may wait for.
    """

    def __init__(self, topic: str, *leaders: int) -> None:
        self.cluster = ClusterMetadata()
        self.came = asyncio.Event()
        self.closed = False
        self.refreshed = 0
        self._topic = topic
        self.lead(*leaders)

    def lead(self, *leaders: int) -> None:
        listed = [(0, number, leader, [1, 2], [1, 2]) for number, leader in enumerate(leaders)]
        brokers = [(node, "broker", node, None) for node in (1, 2)]
        self.cluster.update_metadata(
            MetadataResponse_v1(brokers=brokers, controller_id=1, topics=[(0, self._topic, False, listed)])
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.came.clear()
                await self.came.wait()

    async def bootstrap(self) -> None: ...

    async def close(self) -> None:
        self.closed = True

    async def add_topic(self, topic: str) -> bool:
        return True

    async def force_metadata_update(self) -> bool:
        return True

    async def refresh(self) -> None:
        self.refreshed += 1
        self.came.set()

    def get_random_node(self) -> int:
        return 1
