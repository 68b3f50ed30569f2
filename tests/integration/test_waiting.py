"""Waiting for the result of a command: which one is given, and what is said where none comes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.odd_batches import send
from tests.integration.subscribing import PARTITIONS, Results
from tests.support.commands import create_body
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

from waypost import (
    BufferFullError,
    DeliveryError,
    InvalidCommandError,
    Publisher,
    PublisherClosedError,
    ResultTimeoutError,
    SyncPublisher,
)
from waypost.publisher.waiter import ResultWaiter
from waypost.wire.encode import checkpoint_body
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Servers

STATE = {"text": "ü\u0000", "list": [1, 2.5, None, True]}


@pytest.fixture
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
async def publisher(world: Deployment) -> AsyncIterator[Publisher]:
    async with publisher_of(world) as running:
        yield running


def publisher_of(world: Deployment, **options: Any) -> Publisher:
    return Publisher(world.endpoints.bootstrap_servers, topic_prefix=world.topics.prefix, **options)


async def test_create_and_wait_gives_the_checkpoint_and_the_token(
    world: Deployment, publisher: Publisher
) -> None:
    for partition in range(PARTITIONS):
        world.own(partition)
    results = await asyncio.gather(
        *(
            publisher.create_and_wait(f"session-{number}", "n", STATE, timeout=PATIENCE)
            for number in range(20)
        )
    )
    assert [result.checkpoint_id for result in results] == [f"session-{number}:1" for number in range(20)]
    assert {result.body["checkpoint"]["data"]["text"] for result in results} == {"ü\u0000"}
    assert {result.token[0] for result in results} == set(range(PARTITIONS))
    second = await publisher.create_and_wait("session-0", "n", {}, timeout=PATIENCE)
    assert second.checkpoint_id == "session-0:2"


async def test_a_result_says_that_a_command_was_rejected(world: Deployment, publisher: Publisher) -> None:
    world.own(partition_of("s", PARTITIONS))
    result = await publisher.publish_and_wait("s", EventType.PIN, checkpoint_body("s:1"), timeout=PATIENCE)
    assert result.type == EventType.REJECTED
    with pytest.raises(InvalidCommandError, match="s:1") as caught:
        result.raise_if_rejected()
    assert caught.value.code == "unknown-checkpoint"


async def test_a_command_sent_again_with_its_id_gets_the_first_ones_checkpoint(
    world: Deployment, publisher: Publisher
) -> None:
    world.own(partition_of("s", PARTITIONS))
    first = await publisher.create_and_wait("s", "n", {}, timeout=PATIENCE)
    body = b'{"name":"n","data":{}}'
    command_id = first.body["command"]["id"]
    again = await publisher.publish_and_wait(
        "s", EventType.CREATE, body, command_id=command_id, timeout=PATIENCE
    )
    assert (again.type, again.checkpoint_id) == (EventType.DUPLICATE, "s:1")


async def test_the_result_of_an_earlier_try_is_not_taken_for_that_of_its_repetition(
    world: Deployment,
) -> None:
    world.own(partition_of("s", PARTITIONS))
    results = []
    for _ in range(2):  # as two processes would: the second reads from behind where the first result is
        async with publisher_of(world) as publisher:
            body = create_body("n", {})
            result = await publisher.publish_and_wait(
                "s", EventType.CREATE, body, command_id="same", timeout=PATIENCE
            )
            results.append(result)
    assert [result.type.rpartition(".")[2] for result in results] == ["created", "duplicate"]
    assert results[0].token < results[1].token


async def test_waiting_in_vain_says_that_kafka_has_the_command(
    world: Deployment, publisher: Publisher
) -> None:
    partition = partition_of("s", PARTITIONS)
    publisher.create("s", "n", {})
    assert await publisher.flush(PATIENCE) == 0  # there is a connection
    with pytest.raises(ResultTimeoutError, match=f"Kafka has it, at offset 1 of partition {partition}"):
        await publisher.create_and_wait("s", "n", {}, timeout=2)
    assert await publisher.flush(PATIENCE) == 0


async def test_waiting_for_a_command_that_is_dropped_raises_an_error(world: Deployment) -> None:
    async with Publisher("127.0.0.1:1", max_buffer_count=1, on_full="drop_oldest") as publisher:
        waiting = asyncio.create_task(publisher.create_and_wait("s", "n", {}, timeout=PATIENCE))
        await world.until(lambda: publisher.stats().buffered == 1)
        publisher.create("s", "n", {})
        with pytest.raises(DeliveryError, match="dropped"):
            await waiting
        with pytest.raises(ResultTimeoutError, match="still in this publisher's buffer"):
            await publisher.create_and_wait("s", "n", {}, timeout=0.05)
        await publisher.close(timeout=0)


async def test_waiting_where_the_buffer_is_full_is_refused(world: Deployment) -> None:
    async with Publisher("127.0.0.1:1", max_buffer_count=1) as publisher:
        publisher.create("s", "n", {})
        with pytest.raises(BufferFullError):
            await publisher.create_and_wait("s", "n", {})
        await publisher.close(timeout=0)


async def test_a_result_that_came_long_before_anybody_looked_is_found(
    world: Deployment, publisher: Publisher
) -> None:
    partition = partition_of("s", PARTITIONS)
    running = world.own(partition)
    first = publisher.create("s", "n", {})
    for _ in range(3000):
        publisher.clear("s")
    assert await publisher.flush(PATIENCE) == 0
    await world.answered(3001)
    await running.stop()
    for _ in range(5):  # fence records: what stands last in the topic says nothing of commands
        again = world.own(partition)
        await world.until(lambda: len(again.told.terms) == 1)  # noqa: B023
        await again.stop()
    waiter = ResultWaiter(world.topics, {"bootstrap_servers": world.endpoints.bootstrap_servers})
    landing: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    landing.set_result((partition, 0))
    try:
        async with asyncio.timeout(PATIENCE):
            result = await waiter.wait(first, "s", landing)
    finally:
        await waiter.stop()
    assert (result.type, result.token) == (EventType.CREATED, (partition, 0))


async def test_a_waiter_is_released_immediately_when_the_publisher_is_closed(world: Deployment) -> None:
    publisher = await publisher_of(world).start()
    waiting = asyncio.create_task(publisher.create_and_wait("s", "n", {}, timeout=3600))
    await world.until(lambda: publisher.stats().delivered == 1)
    assert await publisher.close() == 0
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ResultTimeoutError, match=r"before the publisher was closed\. .* Kafka has it"):
            await waiting


async def test_a_thread_that_waits_when_another_closes_is_released_too(world: Deployment) -> None:
    def make() -> SyncPublisher:
        return SyncPublisher(world.endpoints.bootstrap_servers, topic_prefix=world.topics.prefix)

    publisher = await asyncio.to_thread(make)
    waiting = asyncio.create_task(asyncio.to_thread(publisher.create_and_wait, "s", "n", {}, timeout=3600))
    await world.until(lambda: publisher.stats().delivered == 1)
    assert await asyncio.to_thread(publisher.close) == 0
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ResultTimeoutError, match="before the publisher was closed"):
            await waiting


async def test_what_was_never_sent_is_not_said_to_have_been(world: Deployment, publisher: Publisher) -> None:
    publisher.create("s", "n", {})
    assert await publisher.flush(PATIENCE) == 0  # there is a connection, and a batch begins to fill at once
    with pytest.raises(ResultTimeoutError) as told:
        await publisher.create_and_wait("s", "n", {}, timeout=0)
    assert told.value.reached in ("waiting", "sent")
    assert "sent before" not in str(told.value)


async def test_a_wrong_time_out_is_refused_before_anything_is_accepted(publisher: Publisher) -> None:
    with pytest.raises(TypeError):
        await publisher.create_and_wait("s", "n", {}, timeout="soon")  # type: ignore[arg-type]
    assert publisher.stats().accepted == 0


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
            async with asyncio.timeout(PATIENCE):
                result = await waiting
            assert result.token == (partition, offset)
    finally:
        await waiter.stop()


async def test_a_result_may_be_awaited_on_another_event_loop(world: Deployment, publisher: Publisher) -> None:
    for partition in range(PARTITIONS):
        world.own(partition)

    async def elsewhere() -> list[Any]:
        created = await publisher.create_and_wait("s", "n", STATE, timeout=PATIENCE)
        publisher.create("s", "n", STATE)
        await publisher.drain()
        return [created.checkpoint_id, await publisher.flush(PATIENCE)]

    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == ["s:1", 0]


async def test_waiting_for_a_loop_that_does_not_run_raises_an_error(world: Deployment) -> None:
    def story() -> None:
        loop = asyncio.new_event_loop()
        publisher = loop.run_until_complete(publisher_of(world).start())
        for wait in (
            lambda: publisher.create_and_wait("s", "n", {}),
            publisher.flush,
            publisher.close,
        ):
            with pytest.raises(PublisherClosedError, match="is not running"):
                asyncio.run(wait())
        loop.run_until_complete(publisher.close())
        loop.close()

    await asyncio.to_thread(story)
