"""Whatever goes wrong with Kafka, no error of its client leaves a publisher, a subscriber or an adapter."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_framework import WorkflowCheckpoint
from aiokafka.errors import KafkaError, SaslAuthenticationFailed
from langgraph.checkpoint.base import empty_checkpoint
from tests.support.timeouts import PATIENCE

from waypost import (
    AccessDeniedError,
    BufferFullError,
    DatabaseUnavailableError,
    DeadLetterError,
    DeliveryError,
    Event,
    KafkaUnavailableError,
    Publisher,
    PublisherClosedError,
    ResultTimeoutError,
    Subscriber,
    SyncPublisher,
    TokenFile,
    WaypostError,
)
from waypost.adapters import Backend
from waypost.adapters.agent_framework import WaypostCheckpointStorage
from waypost.adapters.langgraph import WaypostSaver
from waypost.adapters.openai_agents import WaypostSession
from waypost.subscriber.dead_letters import DeadLetters
from waypost.wire.event_types import EventType
from waypost.wire.topics import Topics
from waypost_worker.devserver import Servers
from waypost_worker.devserver.ports import Port
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_topics

CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
WRITTEN: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "c"}}


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address at which nobody listens."""
    free = Port()
    yield f"127.0.0.1:{free.number}"
    free.release()


async def fails(call: Awaitable[Any], kind: type[WaypostError], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        async with asyncio.timeout(PATIENCE):
            await call
    assert not isinstance(caught.value, KafkaError)


async def handler(_: Event) -> None:
    raise AssertionError("there is no event")


async def first(subscriber: Subscriber) -> Event:
    async for event in subscriber:
        return event
    raise AssertionError("the iteration ended")


# A broker that nobody runs.


async def test_every_way_to_start_a_subscriber(nowhere: str) -> None:
    said = rf"^No broker can be reached at {nowhere}\. Check bootstrap_servers, and that Kafka is running\.$"
    await fails(Subscriber(nowhere).start(), KafkaUnavailableError, said)
    await fails(Subscriber(nowhere, group="g").__aenter__(), KafkaUnavailableError, said)
    await fails(first(Subscriber(nowhere)), KafkaUnavailableError, said)
    await fails(Subscriber(nowhere).run(handler), KafkaUnavailableError, said)
    await fails(Subscriber(nowhere).run(handler), ConnectionError, said)  # type: ignore[arg-type]


async def test_a_dead_letter_topic_out_of_reach(nowhere: str) -> None:
    letters = DeadLetters("letters", None, {"bootstrap_servers": nowhere})
    await fails(letters.__aenter__(), DeadLetterError, r"'letters' can't be used .* No event was taken")


async def test_every_call_of_a_publisher(nowhere: str) -> None:
    told: dict[str, BaseException | None] = {}
    publisher = Publisher(nowhere, max_buffer_count=3, on_delivery=told.__setitem__)
    async with publisher:
        waiting = [
            publisher.create_and_wait("s", "n", {}, timeout=0.2),
            publisher.publish_and_wait("s", EventType.CLEAR, b"{}", timeout=0.2),
        ]
        for call in waiting:
            await fails(call, ResultTimeoutError, r"still in this publisher's buffer and will be sent")
        await _said(publisher, f"No broker can be reached at {nowhere}")
        await fails(
            publisher.create_and_wait("s", "n", {}, timeout=0.2),
            ResultTimeoutError,
            "No broker can be reached",
        )
        with pytest.raises(BufferFullError, match="Kafka is unreachable"):
            publisher.create("s", "n", {})
        assert await publisher.flush(0.1) == 3
        assert publisher.stats().buffered == 3
        endless = [
            asyncio.create_task(publisher.drain()),
            asyncio.create_task(publisher.configure_defaults(max_age=1)),
        ]
        await asyncio.sleep(0)
        assert await publisher.close(0) == 3
        for task in endless:
            await fails(task, PublisherClosedError, "closed")
    assert len(told) == 3
    assert all(isinstance(error, DeliveryError) for error in told.values())


async def _said(publisher: Publisher, text: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while text not in (publisher.stats().last_error or ""):
            await publisher.flush(0.05)


def test_every_call_of_a_publisher_without_an_event_loop(nowhere: str) -> None:
    with SyncPublisher(nowhere) as publisher:
        with pytest.raises(ResultTimeoutError, match="still in this publisher's buffer"):
            publisher.create_and_wait("s", "n", {}, timeout=0.2)
        with pytest.raises(ResultTimeoutError, match="still in this publisher's buffer"):
            publisher.publish_and_wait("s", EventType.CLEAR, b"{}", timeout=0.2)
        assert publisher.flush(0.1) == 2
        assert publisher.close(0) == 2
    for call in (publisher.flush, lambda: publisher.create("s", "n", {}), publisher.persisted):
        with pytest.raises(PublisherClosedError):
            call()


# Adapters.


def adapter_calls(backend: Backend) -> dict[str, Callable[[], Awaitable[Any]]]:
    """The public calls of all adapters that read, and those that write."""
    saver, session = WaypostSaver(backend), WaypostSession("s", backend)
    storage = WaypostCheckpointStorage(backend, "run")
    workflow = WorkflowCheckpoint(workflow_name="w", graph_signature_hash="h")

    async def listed() -> None:
        async for _ in saver.alist(None):
            pass

    return {
        "aget_tuple": lambda: saver.aget_tuple(CONFIG),
        "alist": listed,
        "aget_delta_channel_history": lambda: saver.aget_delta_channel_history(config=CONFIG, channels=["c"]),
        "adelete_thread": lambda: saver.adelete_thread("t"),
        "adelete_for_runs": lambda: saver.adelete_for_runs(["r"]),
        "acopy_thread": lambda: saver.acopy_thread("t", "u"),
        "aprune": lambda: saver.aprune(["t"]),
        "get_items": session.get_items,
        "pop_item": session.pop_item,
        "clear_session": session.clear_session,
        "load": lambda: storage.load("c"),
        "list_checkpoints": lambda: storage.list_checkpoints(workflow_name="w"),
        "list_checkpoint_ids": lambda: storage.list_checkpoint_ids(workflow_name="w"),
        "get_latest": lambda: storage.get_latest(workflow_name="w"),
        "delete": lambda: storage.delete("c"),
        "aput": lambda: saver.aput(CONFIG, empty_checkpoint(), {}, {}),
        "aput_writes": lambda: saver.aput_writes(WRITTEN, [("c", 1)], "task"),
        "add_items": lambda: session.add_items([{"role": "user", "content": "hi"}]),
        "save": lambda: storage.save(workflow),
    }


WRITES = ("aput", "aput_writes", "add_items", "save")


async def test_adapters_without_postgres(servers: Servers, topic_prefix: str, nowhere: str) -> None:
    kafka = servers.endpoints.bootstrap_servers
    await create_topics(Connection(kafka), Topics(topic_prefix), 1)
    dsn = f"postgresql://u:hidden@{nowhere}/db"
    async with Backend(kafka, dsn, topic_prefix=topic_prefix) as backend:
        for name, call in adapter_calls(backend).items():
            with pytest.raises(
                DatabaseUnavailableError, match="can't be reached: Connection refused"
            ) as caught:
                await call()
            assert "hidden" not in str(caught.value), name


async def test_reads_of_adapters_without_kafka(nowhere: str, database: str) -> None:
    async with Backend(nowhere, database, timeout=0.2) as backend:
        for name, call in adapter_calls(backend).items():
            if name not in WRITES:
                await fails(call(), KafkaUnavailableError, "how far topic 'waypost.commands' goes")


async def test_adapters_without_kafka(nowhere: str, database: str) -> None:
    async with Backend(nowhere, database, timeout=0.2) as backend:
        calls = adapter_calls(backend)
        said = r"It was accepted, it is still in this publisher's buffer"
        async with asyncio.TaskGroup() as group:
            for name in WRITES:
                group.create_task(fails(calls[name](), ResultTimeoutError, said))
        await backend._connection.publisher.close(0)  # the backend would wait 10 s for Kafka
    await fails(calls["aput"](), PublisherClosedError, "The backend is closed|the backend is closed")


# Tokens.


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read: No such file"),
        ("", "is empty"),
        ("a.eyJleHAiOjF9.c", "expired at 1970-01-01T00:00:01"),
    ],
    ids=["missing", "empty", "expired"],
)
async def test_a_token_file_that_cannot_be_used(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AccessDeniedError, match=said) as caught:
        await TokenFile(path).token()
    # aiokafka asks for the token, and must take this for a login that failed.
    assert isinstance(caught.value, SaslAuthenticationFailed)
    assert "Error" not in str(caught.value)
