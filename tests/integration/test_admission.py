"""Whatever a broker accepts on the command topic, every offset is answered once, and commands behind it are applied."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import orjson
import pytest
from tests.support.batch_variants import variants
from tests.support.deployment import Deployment, deployment
from tests.support.raw_kafka import RawKafka

from waypost.kafka.record_batches import Hidden, Unreadable, decode_batches
from waypost_worker.devserver import Servers

# Hundreds of thousands of tiny records in one batch are answered, too, and take a minute on a busy machine.
MOST_RECORDS = 10_000


def batches() -> list[bytes]:
    raw = [variant.raw for variant in variants()]
    return [one for one in raw if int.from_bytes(one[57:61], "big", signed=True) <= MOST_RECORDS]


@pytest.fixture
def kafka(servers: Servers) -> Iterator[RawKafka]:
    with RawKafka(servers.endpoints.bootstrap_servers) as connection:
        yield connection


async def end_of_log(world: Deployment) -> int:
    log = world.ports().make_log()
    try:
        return (await log.bounds())[1]
    finally:
        await log.close()


async def log_of(kafka: RawKafka, world: Deployment, end: int) -> tuple[list[int], dict[int, str]]:
    """The offsets that need an answer, and the reason of those that nobody can read."""
    offsets: list[int] = []
    unreadable: dict[int, str] = {}
    position = 0
    while position < end:
        fetched = await asyncio.to_thread(kafka.fetch, world.topics.commands, 0, position, 3_000_000)
        for piece in decode_batches(fetched, position):
            covered = range(piece.first, piece.last + 1)  # type: ignore[union-attr]
            if not isinstance(piece, Hidden):
                offsets += covered
            if isinstance(piece, Unreadable):
                unreadable |= dict.fromkeys(covered, piece.reason)
            position = covered[-1] + 1
    return offsets, unreadable


async def test_every_batch_that_a_broker_accepts_is_answered_offset_by_offset(
    servers: Servers, database: str, topic_prefix: str, kafka: RawKafka
) -> None:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=1) as world:
        session = world.sessions(0, 1)[0]
        for raw in batches():
            await asyncio.to_thread(kafka.produce, world.topics.commands, 0, raw)
        await world.create(session, "behind all of them")
        end = await end_of_log(world)
        offsets, unreadable = await log_of(kafka, world, end)
        assert set(unreadable.values()) == {"undecodable", "too-large"}
        world.own(0)
        await world.answered(len(offsets))
        bodies = [
            orjson.loads(record.value)
            for record in (await world.results())[0]
            if dict(record.headers)["ce_type"] != b"waypost.partition.acquired"
        ]
        assert [body["command"]["offset"] for body in bodies] == offsets
        codes = {body["command"]["offset"]: body.get("code") for body in bodies}
        assert {offset: codes[offset] for offset in unreadable} == unreadable
        assert "checkpoint" in bodies[-1]
        kept = await world.pool.fetch(
            'select "offset", code, value from waypost.rejected_commands order by 1'
        )
        assert Counter(row["offset"] for row in kept).keys() >= unreadable.keys()
        assert all(len(row["value"] or b"") <= 1_048_576 for row in kept)


async def test_a_new_owner_continues_behind_a_batch_that_nobody_can_read(
    servers: Servers, database: str, topic_prefix: str, kafka: RawKafka
) -> None:
    """The anchor of the position is then the hash of an offset without a record."""
    unreadable = [variant for variant in variants() if variant.accepted and variant.answer == "undecodable"]
    async with deployment(servers.endpoints, database, topic_prefix, partitions=1) as world:
        session = world.sessions(0, 1)[0]
        for variant in unreadable[:3]:
            await asyncio.to_thread(kafka.produce, world.topics.commands, 0, variant.raw)
        end = await end_of_log(world)
        offsets, _ = await log_of(kafka, world, end)
        first = world.own(0)
        await world.answered(len(offsets))
        await first.stop()
        await world.create(session)
        world.own(0)
        await world.answered(len(offsets) + 1)
