"""What the tests of the adapters share: a deployment with a worker, and a backend of it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.deployment import Deployment, deployment

from waypost.adapters import Backend
from waypost_worker.devserver import Servers


@pytest.fixture
async def adapter_world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=2) as made:
        for partition in range(made.partitions):
            made.own(partition)
        yield made


@pytest.fixture
async def backend(adapter_world: Deployment) -> AsyncIterator[Backend]:
    async with running_backend(adapter_world) as running:
        yield running


def running_backend(world: Deployment, **options: Any) -> Backend:
    """A backend of this deployment, to be started with ``async with`` or ``with``."""
    return Backend(world.endpoints.bootstrap_servers, world.dsn, topic_prefix=world.topics.prefix, **options)
