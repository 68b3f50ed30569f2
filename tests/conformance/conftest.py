from collections.abc import AsyncIterator

import pytest
from tests.conformance.stores import STORES, Stores
from tests.conformance.worlds import WORLDS, World


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with request.param(request) as made:
        yield made


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    async with request.param(request) as made:
        yield made
