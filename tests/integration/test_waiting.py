"""Waiting for the result of a command beside records of others in the results topic."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.harness import Deployment, deployment
from tests.integration.odd_batches import send
from tests.integration.subscribing import PARTITIONS, Results

from waypost.awaiting import ResultWaiter
from waypost.topics import partition_of
from waypost_worker.devserver import Servers


@pytest.fixture
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, PARTITIONS) as made:
        yield made


async def test_records_that_the_client_cannot_read_are_passed_over(world: Deployment) -> None:
    partition = partition_of("s", PARTITIONS)
    results = Results(world)
    waiter = ResultWaiter(world.topics, {"bootstrap_servers": world.endpoints.bootstrap_servers})
    try:
        for offset in range(3):
            await send(world.producer, world.topics.results, [b"odd", b"odder"], odd=[1], partition=partition)
            landing: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
            landing.set_result((partition, offset))
            waiting = asyncio.create_task(waiter.wait(f"c-{offset}", "s", landing))
            await results.created("s")
            async with asyncio.timeout(20):
                result = await waiting
            assert result.token == (partition, offset)
    finally:
        await waiter.stop()
