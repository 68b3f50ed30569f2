"""Offsets of several partitions in one ListOffsets request: who asks with whom, and whose answer is whose."""

import asyncio
from collections.abc import Hashable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    NotLeaderForPartitionError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.offset import OffsetResponse_v1

from waypost.kafka.log_offsets import END, FIRST, READ_COMMITTED, READ_UNCOMMITTED
from waypost_worker.kafka import list_offsets
from waypost_worker.kafka.client import ClusterClient, Lane
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.list_offsets import offsets_at

TOPIC = "commands"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_offsets, "_PAUSE", 0)


class Brokers(ClusterClient):
    """Partition p begins at 10 * p and ends at 100 + p. ``codes`` holds error codes by partition, each given once;
    ``failures`` are raised in place of answers. Partitions in ``silent`` are left out of the next answer.
    """

    def __init__(self) -> None:
        super().__init__(Connection("scripted:1", request_timeout=10))
        self.sent: list[tuple[int, int, dict[int, int]]] = []
        self.leaders: dict[int, int] = {}
        self.codes: dict[int, int] = {}
        self.failures: list[Exception] = []
        self.silent: set[int] = set()
        self.refreshed = 0
        self.under_way, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()

    async def leader_of(self, partition: TopicPartition) -> int:
        return self.leaders.get(partition.partition, 1)

    async def refresh(self) -> None:
        self.refreshed += 1

    async def send(self, node: int, request: Any, lane: Hashable = Lane.CONTROL) -> Any:
        _, isolation, ((topic, asked),) = (
            request.prepare({2: (2, 2)}).get_item(name)
            for name in ("replica_id", "isolation_level", "topics")
        )
        assert topic == TOPIC
        assert len(dict(asked)) == len(asked), "a partition is named twice"
        self.sent.append((node, isolation, dict(asked)))
        self.under_way.set()
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        silent, self.silent = self.silent, set()
        answers = [
            (number, self.codes.pop(number, 0), time, 10 * number if time == FIRST else 100 + number)
            for number, time in asked
            if number not in silent
        ]
        return OffsetResponse_v1([(TOPIC, answers[::-1])])


def named(*numbers: int) -> list[TopicPartition]:
    return [TopicPartition(TOPIC, number) for number in numbers]


async def first_offsets(brokers: Brokers, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    return await offsets_at(brokers, dict.fromkeys(partitions, FIRST), READ_UNCOMMITTED)


async def end_offsets(
    brokers: Brokers, partitions: list[TopicPartition], isolation: int
) -> dict[TopicPartition, int]:
    return await offsets_at(brokers, dict.fromkeys(partitions, END), isolation)


def numbered(found: dict[TopicPartition, int]) -> dict[int, int]:
    return {partition.partition: offset for partition, offset in found.items()}


@pytest.fixture
async def brokers() -> Brokers:
    return Brokers()


async def test_questions_asked_together_go_in_one_request_for_each_broker(brokers: Brokers) -> None:
    brokers.leaders = {0: 1, 1: 2, 2: 1, 3: 2}
    found = await asyncio.gather(
        *(end_offsets(brokers, named(number), READ_COMMITTED) for number in range(4))
    )
    assert [numbered(one) for one in found] == [{0: 100}, {1: 101}, {2: 102}, {3: 103}]
    assert sorted(brokers.sent, key=lambda one: one[0]) == [
        (1, READ_COMMITTED, {0: END, 2: END}),
        (2, READ_COMMITTED, {1: END, 3: END}),
    ]


async def test_beginning_and_end_of_a_partition_are_asked_for_in_two_requests(brokers: Brokers) -> None:
    starts, ends, again = await asyncio.gather(
        first_offsets(brokers, named(1, 2)),
        end_offsets(brokers, named(1, 2), READ_UNCOMMITTED),
        end_offsets(brokers, named(2), READ_UNCOMMITTED),
    )
    assert (numbered(starts), numbered(ends), numbered(again)) == ({1: 10, 2: 20}, {1: 101, 2: 102}, {2: 102})
    assert [asked for _, _, asked in brokers.sent] == [{1: FIRST, 2: FIRST}, {1: END, 2: END}]


async def test_what_a_reader_may_see_is_asked_apart_from_what_is_there(brokers: Brokers) -> None:
    await asyncio.gather(
        *(end_offsets(brokers, named(1), isolation) for isolation in (READ_COMMITTED, READ_UNCOMMITTED))
    )
    assert sorted(isolation for _, isolation, _ in brokers.sent) == [READ_UNCOMMITTED, READ_COMMITTED]


async def test_what_comes_while_a_request_is_under_way_forms_the_next_one(brokers: Brokers) -> None:
    brokers.open.clear()
    first = asyncio.create_task(end_offsets(brokers, named(0), READ_COMMITTED))
    await brokers.under_way.wait()
    late = [asyncio.create_task(end_offsets(brokers, named(number), READ_COMMITTED)) for number in (1, 2)]
    for _ in range(20):
        await asyncio.sleep(0)
    brokers.open.set()
    assert [numbered(await one) for one in (first, *late)] == [{0: 100}, {1: 101}, {2: 102}]
    assert [asked for _, _, asked in brokers.sent] == [{0: END}, {1: END, 2: END}]


async def test_one_that_is_refused_takes_nobody_along(brokers: Brokers) -> None:
    brokers.codes[1] = TopicAuthorizationFailedError.errno
    found = await asyncio.gather(
        *(end_offsets(brokers, named(number), READ_COMMITTED) for number in range(3)), return_exceptions=True
    )
    assert isinstance(found.pop(1), TopicAuthorizationFailedError)
    assert found == [{named(0)[0]: 100}, {named(2)[0]: 102}]
    assert len(brokers.sent) == 1


async def test_one_whose_leader_changed_asks_again_alone(brokers: Brokers) -> None:
    brokers.codes[1] = NotLeaderForPartitionError.errno
    found = await end_offsets(brokers, named(0, 1, 2), READ_COMMITTED)
    assert numbered(found) == {0: 100, 1: 101, 2: 102}
    assert [asked for _, _, asked in brokers.sent] == [{0: END, 1: END, 2: END}, {1: END}]
    assert brokers.refreshed == 1


async def test_one_that_is_not_in_the_answer_asks_again(brokers: Brokers) -> None:
    brokers.silent = {2}
    assert numbered(await first_offsets(brokers, named(1, 2))) == {1: 10, 2: 20}
    assert [asked for _, _, asked in brokers.sent] == [{1: FIRST, 2: FIRST}, {2: FIRST}]


async def test_after_a_broken_connection_all_ask_again_together(brokers: Brokers) -> None:
    brokers.failures = [KafkaConnectionError("it broke")]
    found = await asyncio.gather(
        *(offsets_at(brokers, {one: 1700}, READ_UNCOMMITTED) for one in named(0, 1, 2))
    )
    assert [numbered(one) for one in found] == [{0: 100}, {1: 101}, {2: 102}]
    assert [asked for _, _, asked in brokers.sent] == [{0: 1700, 1: 1700, 2: 1700}] * 2
