from collections.abc import AsyncIterator

import pytest
from tests.conformance.worlds import WORLDS, World


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with request.param(request) as made:
        yield made
