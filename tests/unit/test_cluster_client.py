"""Requests over shared connections: a caller that gives up leaves the connection to find out what is wrong."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from waypost.kafka.cluster_connections import ClusterConnections
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.connection import Connection


class Silent:
    """Connections whose broker never answers. ``ended`` is how its requests ended."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.ended: list[str] = []
        self.closed = False

    async def send(self, node: int, request: Any, *, group: int) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended.append("canceled")
            raise

    def force_metadata_update(self) -> asyncio.Future[bool]:
        self.asked.set()
        return asyncio.shield(asyncio.get_running_loop().create_future())

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
async def silent() -> Silent:
    return Silent()


@pytest.fixture
async def client(silent: Silent) -> ClusterClient:
    client = ClusterClient(Connection("nowhere:1"))
    client._client = silent  # type: ignore[assignment]
    await client.use("test")
    return client


async def test_a_request_outlives_a_caller_that_gives_up(client: ClusterClient, silent: Silent) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await client.send(1, "request")
    waiting = asyncio.create_task(client.send(1, "request"))
    await silent.asked.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert silent.ended == []
    await client.release("test")


async def test_the_last_user_leaves_no_request_behind(client: ClusterClient, silent: Silent) -> None:
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(client.send(1, "request"))
    await silent.asked.wait()
    await client.release("test")
    assert silent.closed
    assert silent.ended == ["canceled"]
    with pytest.raises(KafkaConnectionError, match="closed"):
        await waiting
    assert asyncio.all_tasks() == before


async def test_who_looks_for_leaders_hears_that_the_connections_were_closed(
    client: ClusterClient, silent: Silent
) -> None:
    looking = asyncio.create_task(client.refresh())
    await silent.asked.wait()
    await client.release("test")
    async with asyncio.timeout(60):
        with pytest.raises(KafkaConnectionError, match="closed"):
            await looking


async def test_who_waits_for_connections_that_nobody_uses_any_more_is_not_canceled(
    client: ClusterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bootstrap(_: ClusterConnections) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ClusterConnections, "bootstrap", bootstrap)
    client._client = None  # no broker answered, so it starts from the bootstrap servers again
    waiting = asyncio.create_task(client.send(1, "request"))  # such as a fetch, which is no user
    await asyncio.sleep(0)
    await client.release("test")
    with pytest.raises(KafkaConnectionError, match="closed"):
        await waiting


async def test_what_users_share_is_made_once(client: ClusterClient) -> None:
    class Part:
        def __init__(self, client: ClusterClient) -> None:
            self.client = client

    assert client.shared(Part) is client.shared(Part)
    assert client.shared(Part).client is client
    await client.release("test")
