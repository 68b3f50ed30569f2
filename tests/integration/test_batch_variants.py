"""What a broker accepts of hostile record batches, and what a reader answers to what the broker hands out."""

from collections.abc import Iterator

import pytest
from tests.support.batch_variants import variants
from tests.support.hostile_batches import GZIP, batch, gzip_member, message, records
from tests.support.raw_kafka import RawKafka
from tests.support.record_pieces import answer, assert_tiled
from tests.support.variant import Variant

from waypost import Topics
from waypost.kafka.record_batches import decode_batches
from waypost_worker.devserver import Servers
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_topics

INVALID_RECORD = 87


@pytest.fixture
async def topic(servers: Servers, topic_prefix: str) -> str:
    topics = Topics(topic_prefix)
    await create_topics(Connection(servers.endpoints.bootstrap_servers), topics, 1)
    return topics.commands


@pytest.fixture
def kafka(servers: Servers) -> Iterator[RawKafka]:
    with RawKafka(servers.endpoints.bootstrap_servers) as connection:
        yield connection


async def test_the_list_says_what_a_broker_accepts_and_a_reader_answers(topic: str, kafka: RawKafka) -> None:
    wrong: list[str] = []
    accepted: list[tuple[Variant, int]] = []
    for variant in variants():
        error, offset = kafka.produce(topic, 0, variant.raw)
        if (error == 0) != variant.accepted:
            wrong.append(f"{variant.title}: the broker answers {error}")
        if error == 0:
            accepted.append((variant, offset))
    assert wrong == []
    for variant, offset in accepted:
        # Only the whole batch: those that follow are fetched on their own.
        fetched = kafka.fetch(topic, 0, offset, most=1)
        pieces = list(decode_batches(fetched, offset))
        assert_tiled(pieces, fetched, offset)
        if answer(pieces) != variant.answer:
            wrong.append(f"{variant.title}: the reader answers {answer(pieces)}")
    assert wrong == []


async def test_a_whole_log_of_them_is_answered_offset_by_offset(topic: str, kafka: RawKafka) -> None:
    end = 0
    for variant in variants():
        error, offset = kafka.produce(topic, 0, variant.raw)
        if error == 0:
            end = offset
    end = kafka.produce(topic, 0, batch(records(1), 1)).offset + 1
    position = 0
    while position < end:
        fetched = kafka.fetch(topic, 0, position, most=3_000_000)
        for piece in decode_batches(fetched, position):
            assert piece.first == position
            position = piece.last + 1  # type: ignore[union-attr]
    assert position == end


async def test_no_broker_still_takes_old_formats(topic: str, kafka: RawKafka) -> None:
    for magic in (0, 1):
        wrapper = message(gzip_member(message(magic=magic)), None, magic=magic, codec=GZIP)
        for raw in (message(magic=magic), wrapper):
            for version in (3, 7):
                assert kafka.produce(topic, 0, raw, version).error == INVALID_RECORD


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_no_broker_speaks_the_protocol_of_old_formats(
    topic: str, kafka: RawKafka, version: int
) -> None:
    with pytest.raises(ConnectionError):
        kafka.produce(topic, 0, message(), version)
