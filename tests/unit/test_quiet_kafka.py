"""While Kafka is unreachable, a program's log has one line of Waypost, and none of aiokafka about Waypost's clients."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError
from tests.unit.spools import NOWHERE, until

from waypost import KafkaUnavailableError, Publisher, Subscriber
from waypost.kafka.quiet import OutageLog, quiet


@pytest.fixture(autouse=True)
def _client_logs() -> Iterator[None]:
    """Let aiokafka log as in a program of its own: commands, which other tests run, silence it for good."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(before)


def names(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.name for record in caplog.records]


async def test_a_publisher_logs_an_outage_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with Publisher(NOWHERE) as publisher:
        attempts = 0
        one_producer = publisher._sender._one_producer  # type: ignore[union-attr]

        async def counted() -> None:
            nonlocal attempts
            attempts += 1
            await one_producer()

        publisher._sender._one_producer = counted  # type: ignore[union-attr, method-assign]
        await until(lambda: attempts >= 3)
    assert names(caplog) == ["waypost"]
    assert f"No broker can be reached at {NOWHERE}" in caplog.text


async def test_a_subscriber_that_cannot_start_raises_and_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KafkaUnavailableError):
        await Subscriber(NOWHERE).start()
    assert names(caplog) == []


async def fail_to_connect() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=NOWHERE)
    try:
        with pytest.raises(KafkaConnectionError):
            await consumer.start()
    finally:
        await consumer.stop()


async def test_other_clients_of_the_program_log_as_before(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        await asyncio.create_task(fail_to_connect())
    assert names(caplog) == []
    await fail_to_connect()
    assert names(caplog) == ["aiokafka"]


async def test_debug_shows_what_is_silenced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "waypost")
    with quiet():
        await fail_to_connect()
    assert "aiokafka" in names(caplog)


def test_an_outage_of_a_running_subscriber_is_one_line_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("waypost.kafka.quiet.time.monotonic", lambda: now)
    outage = OutageLog("results may come late")
    outage.tell("broker 1 can't be reached")
    assert names(caplog) == []
    outage.enabled = True
    for _ in range(10):
        outage.tell("broker 1 can't be reached")
    assert [record.getMessage() for record in caplog.records] == [
        "A Kafka broker is unreachable; results may come late. Retrying. broker 1 can't be reached"
    ]
    now += 60
    outage.tell("broker 1 can't be reached")
    assert names(caplog) == ["waypost", "waypost"]
