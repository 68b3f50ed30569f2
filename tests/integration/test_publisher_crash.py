"""Agents killed with SIGKILL under load: what the spool promises, and what is lost without it.

`make crash-tests` does the same 200 times.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest
from tests.support.deployment import deployment
from tests.support.servers import ServerDirectory, started
from tests.support.timeouts import PATIENCE
from tests.tools.crash.rounds import DEATHS, STATES, KafkaState, Rounds

from waypost import Topics
from waypost.wire.event_types import EventType
from waypost_worker.devserver import EmbeddedKafka, Endpoints
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_topics

pytestmark = pytest.mark.servers
PARTITIONS = 2
SEED = 20_261_124


@pytest.fixture(scope="module")
def kafka(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    """A broker of this file's own, for freezing."""
    with started(EmbeddedKafka(server_directory("kafka"))) as running:
        yield running


@pytest.fixture
async def rounds(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Rounds]:
    topics = Topics(topic_prefix)
    await create_topics(Connection(kafka.bootstrap_servers), topics, PARTITIONS)
    yield Rounds(kafka, topics, tmp_path / "spool", SEED)
    kafka.resume()


async def test_with_a_spool_each_accepted_command_is_applied_once_and_in_order(
    rounds: Rounds, kafka: EmbeddedKafka, database: str, topic_prefix: str
) -> None:
    states: tuple[KafkaState, ...] = ("up", "frozen", "down")
    for state, death in zip((*states, "up"), DEATHS, strict=True):
        await rounds.kill(state, death)
    await rounds.drain()
    found = await rounds.verdict()
    assert found.accepted > 100
    assert (found.missing, found.applied_twice, found.out_of_order) == (0, 0, 0), found
    assert found.farthest < 192, found
    # And so says a worker.
    endpoints = Endpoints(kafka.bootstrap_servers, database)
    async with deployment(endpoints, database, topic_prefix, PARTITIONS) as world:
        for partition in range(PARTITIONS):
            world.own(partition)
        await world.answered(found.arrived)
        created: dict[str, list[int]] = defaultdict(list)
        for record in (record for records in (await world.results()).values() for record in records):
            if dict(record.headers)["ce_type"] == EventType.CREATED.wire:
                created[record.key].append(orjson.loads(record.value)["checkpoint"]["data"]["number"])
    assert all(numbers == sorted(set(numbers)) for numbers in created.values())
    assert rounds.said.accepted <= {number for numbers in created.values() for number in numbers}


async def test_without_a_spool_only_what_kafka_had_not_is_lost(rounds: Rounds) -> None:
    for state in STATES:
        await rounds.kill(state, spool=None)
    found = await rounds.verdict()
    assert found.missing > 0, found
    assert (found.missing_though_delivered, found.applied_twice, found.out_of_order) == (0, 0, 0), found


async def test_an_agent_that_lives_to_report_says_how_many_are_lost_or_left(rounds: Rounds) -> None:
    assert await rounds.ends(300, spool=None) == 300
    lost = await rounds.verdict()
    assert lost.missing == 300
    assert await rounds.ends(200) == 200
    await asyncio.wait_for(rounds.drain(), PATIENCE)
    assert (await rounds.verdict()).missing == 300
