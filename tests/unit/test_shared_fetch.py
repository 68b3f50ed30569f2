"""Partitions that are fetched together: who is in which request, when it is sent, and whom an error concerns."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import RequestTimedOutError
from tests.support.scripted_cluster import TOPIC, ScriptedCluster, on_virtual_time

from waypost_worker.kafka.client import Lane
from waypost_worker.kafka.fetch_rounds import FETCH_BYTES
from waypost_worker.kafka.partition_reader import PartitionReader
from waypost_worker.partition.ports import RefusedError, UnavailableError

VALUE = [b"v" * 100]
MANY = 1000
CORRUPT, NOT_LEADER = 2, 6


def reader_of(cluster: ScriptedCluster, partition: int) -> PartitionReader:
    return PartitionReader(cluster, TopicPartition(TOPIC, partition), "read_committed", is_live=True)


async def readers_at(cluster: ScriptedCluster, offset: int = 0) -> list[PartitionReader]:
    readers = [reader_of(cluster, partition) for partition in cluster.logs]
    for reader in readers:
        await reader.seek(offset)
    return readers


async def offsets(reader: PartitionReader, wait_ms: int = 1000) -> list[int]:
    return [record.offset for record in await reader.get(wait_ms, MANY)]


def now() -> float:
    return asyncio.get_running_loop().time()


async def asleep(readers: Sequence[PartitionReader]) -> list[asyncio.Task[list[int]]]:
    """Let an owner wait at each of these; they are in a request under way."""
    waits = [asyncio.create_task(offsets(reader, 60_000)) for reader in readers]
    await asyncio.sleep(0.01)
    return waits


# Who is in a request.


def test_the_id_of_a_topic_is_asked_for_together() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(96)
        await asleep(await readers_at(cluster))
        assert cluster.asked_for_ids == 1

    on_virtual_time(work)


def test_all_partitions_of_a_broker_go_into_one_request() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(96)
        await asleep(await readers_at(cluster))
        assert [len(one.offsets) for one in cluster.sent] == [96]
        assert {one.lane for one in cluster.sent} == {Lane.FETCH}

    on_virtual_time(work)


def test_each_leader_gets_its_own_request() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(6, nodes=(1, 2, 3))
        await asleep(await readers_at(cluster))
        assert {one.node: sorted(one.offsets) for one in cluster.sent} == {1: [0, 3], 2: [1, 4], 3: [2, 5]}

    on_virtual_time(work)


def test_each_partition_gets_its_own_records() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(3)
        readers = await readers_at(cluster)
        for partition in cluster.logs:
            cluster.append(partition, [b"of %d" % partition])
        found = await asyncio.gather(*(reader.get(1000, MANY) for reader in readers))
        assert [[record.value for record in records] for records in found] == [
            [b"of 0"],
            [b"of 1"],
            [b"of 2"],
        ]

    on_virtual_time(work)


def test_nothing_is_asked_while_nobody_waits() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        first, _ = await readers_at(cluster)
        cluster.append(0, VALUE)
        assert await offsets(first) == [0]
        await asyncio.sleep(5)
        assert len(cluster.sent) == 1

    on_virtual_time(work)


def test_a_busy_owner_finds_what_came_meanwhile() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        busy, waiting = await readers_at(cluster)
        cluster.append(0, VALUE)
        assert await offsets(busy) == [0]
        await asleep([waiting])
        for _ in range(3):
            cluster.append(0, VALUE)
            await asyncio.sleep(0.1)
        began = now()
        assert await offsets(busy) == [1, 2, 3]
        assert now() == began

    on_virtual_time(work)


def test_a_partition_that_is_full_leaves_the_request_and_disturbs_nobody() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        full, waiting = await readers_at(cluster)
        wait = (await asleep([waiting]))[0]
        cluster.append(0, [bytes(FETCH_BYTES // 2)])
        cluster.append(0, [bytes(FETCH_BYTES // 2)])
        assert await offsets(full) == [0]
        await asyncio.sleep(2)
        assert 0 not in cluster.sent[-1].offsets
        began = now()
        cluster.append(1, VALUE)
        assert await wait == [0]
        assert now() - began < 0.01
        assert await offsets(full) == [1]

    on_virtual_time(work)


# A partition that is not in the request under way.


def test_a_partition_that_comes_later_does_not_wait_for_the_request_under_way() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        late, waiting = await readers_at(cluster)
        await asleep([waiting])
        cluster.append(0, VALUE)
        began = now()
        assert await offsets(late) == [0]
        assert now() - began < 0.01
        assert cluster.sent[-1].lane is Lane.FETCH_BESIDE

    on_virtual_time(work)


def test_a_partition_that_moved_gets_no_records_from_its_former_position() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        for _ in range(5):
            cluster.append(0, VALUE)
        moved, waiting = await readers_at(cluster, 0)
        await moved.seek(5)
        await asleep([waiting])
        wait = (await asleep([moved]))[0]
        wait.cancel()
        await moved.seek(3)
        cluster.append(0, VALUE)  # answers what was asked for before, too
        began = now()
        assert await offsets(moved) == [3, 4, 5]
        assert now() - began < 0.03

    on_virtual_time(work)


def test_a_partition_that_came_later_joins_the_others_at_the_next_occasion() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(3)
        readers = await readers_at(cluster)
        await asleep(readers[:2])
        await asleep(readers[2:])
        await asyncio.sleep(2)
        assert [len(one.offsets) for one in cluster.under_way] == [3]
        assert all(one.wait_ms <= 20 for one in cluster.sent if one.lane is Lane.FETCH_BESIDE)

    on_virtual_time(work)


def test_a_closed_partition_is_dropped_and_its_successor_is_fetched_immediately() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        former, waiting = await readers_at(cluster)
        await asleep([waiting])
        wait = (await asleep([former]))[0]
        wait.cancel()
        await former.close()
        cluster.append(0, VALUE)
        successor = reader_of(cluster, 0)
        await successor.seek(0)
        assert await offsets(successor) == [0]
        assert former.progress.position == 0

    on_virtual_time(work)


# When a request is sent.


def test_records_gather_while_those_of_the_last_request_are_processed() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(3)
        readers = await readers_at(cluster)
        waits = await asleep(readers)
        cluster.append(0, VALUE)
        assert await waits[0] == [0]
        sent = len(cluster.sent)
        cluster.append(1, VALUE)
        await asyncio.sleep(0.002)
        assert len(cluster.sent) == sent
        again = (await asleep([readers[0]]))[0]  # done with its batch
        assert len(cluster.sent) > sent
        assert await waits[1] == [0]
        again.cancel()

    on_virtual_time(work)


def test_one_that_takes_long_holds_nobody_up() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        slow, waiting = await readers_at(cluster)
        waits = await asleep([slow, waiting])
        cluster.append(0, VALUE)
        assert await waits[0] == [0]
        began = now()
        cluster.append(1, VALUE)
        assert await waits[1] == [0]
        assert now() - began < 0.02

    on_virtual_time(work)


def test_a_backlog_of_more_partitions_than_fit_into_an_answer_is_shared_out() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(20)
        for partition in cluster.logs:
            for _ in range(10):
                cluster.append(partition, [bytes(900_000)])
        readers = await readers_at(cluster)
        found: list[list[int]] = [[] for _ in readers]

        async def own(partition: int) -> None:
            while len(found[partition]) < 10:
                found[partition] += await offsets(readers[partition])
                assert min(map(len, found)) > 0 or max(map(len, found)) < 5, "somebody starves"

        await asyncio.gather(*map(own, cluster.logs))
        assert found == [list(range(10))] * 20

    on_virtual_time(work)


# Whom an error concerns.


def test_an_error_of_a_partition_concerns_no_other() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        hit, other = await readers_at(cluster)
        cluster.logs[0].errors = [CORRUPT]
        waits = await asleep([hit, other])
        with pytest.raises(UnavailableError, match="Corrupt"):
            await waits[0]
        cluster.append(1, VALUE)
        assert await waits[1] == [0]
        assert (hit.disturbances, other.disturbances) == (0, 0)

    on_virtual_time(work)


def test_a_position_out_of_range_is_refused_alone() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        cluster.logs[0].start = cluster.logs[0].end = 5
        hit, other = await readers_at(cluster)

        async def bounds() -> tuple[int, int]:
            return 5, 5

        hit.bounds = bounds  # type: ignore[method-assign]
        waits = await asleep([hit, other])
        with pytest.raises(RefusedError, match="0 is the next offset to read"):
            await waits[0]
        cluster.append(1, VALUE)
        assert await waits[1] == [0]

    on_virtual_time(work)


def test_a_partition_that_changes_its_leader_is_followed() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2, nodes=(1, 2))
        moved, other = await readers_at(cluster)
        cluster.logs[0].errors = [NOT_LEADER]
        waits = await asleep([moved, other])
        cluster.move(0, 2)
        cluster.append(0, VALUE)
        assert await waits[0] == [0]
        assert (moved.disturbances, other.disturbances) == (1, 0)
        assert cluster.sent[-1].node == 2

    on_virtual_time(work)


def test_a_look_for_leaders_that_never_ends_stops_nobody_for_good() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(1)
        (reader,) = await readers_at(cluster)
        refresh = cluster.refresh

        async def hang() -> None:
            cluster.refresh = refresh  # type: ignore[method-assign]
            await asyncio.Event().wait()

        cluster.refresh = hang  # type: ignore[method-assign]
        cluster.logs[0].errors = [NOT_LEADER]
        with pytest.raises(UnavailableError, match="fetching topic/0"):
            await offsets(reader, 60_000)
        cluster.append(0, VALUE)
        assert await offsets(reader) == [0]

    on_virtual_time(work)


def test_a_broken_connection_is_counted_by_all_whose_fetch_was_in_it() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(3)
        readers = await readers_at(cluster)
        waits = await asleep(readers[:2])
        cluster.break_connections()
        cluster.append(0, VALUE)
        cluster.append(1, VALUE)
        assert await asyncio.gather(*waits) == [[0], [0]]
        assert [reader.disturbances for reader in readers] == [1, 1, 0]
        assert cluster.refreshes == 1

    on_virtual_time(work)


def test_a_client_that_started_again_is_counted_by_everybody() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        readers = await readers_at(cluster)
        for partition, reader in enumerate(readers):
            cluster.append(partition, VALUE)
            assert await offsets(reader) == [0]
        assert [reader.disturbances for reader in readers] == [0, 0]
        cluster.starts += 1
        for partition, reader in enumerate(readers):
            cluster.append(partition, VALUE)
            assert await offsets(reader) == [1]
        assert [reader.disturbances for reader in readers] == [1, 1]

    on_virtual_time(work)


def test_a_fetch_that_times_out_concerns_those_who_wait() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2)
        busy, waiting = await readers_at(cluster)
        cluster.append(0, VALUE)
        assert await offsets(busy) == [0]
        cluster.problems = [RequestTimedOutError()]
        waits = await asleep([waiting])
        with pytest.raises(UnavailableError, match="RequestTimedOutError"):
            await waits[0]
        cluster.append(0, VALUE)
        assert await offsets(busy) == [1]

    on_virtual_time(work)


def test_a_topic_id_that_one_broker_does_not_know_yet_is_asked_for_again() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(1)
        cluster.logs[0].errors = [100]
        (reader,) = await readers_at(cluster)
        cluster.append(0, VALUE)
        assert await offsets(reader) == []
        assert await offsets(reader) == [0]
        assert reader.disturbances == 1

    on_virtual_time(work)


def test_a_topic_with_another_id_is_refused() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(1)
        (reader,) = await readers_at(cluster)
        cluster.append(0, VALUE)
        assert await offsets(reader) == [0]
        cluster.topic_id = UUID(int=78)
        with pytest.raises(RefusedError, match="created again"):
            await offsets(reader)

    on_virtual_time(work)


def test_brokers_without_topic_ids_are_asked_by_name() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(2, has_ids=False)
        readers = await readers_at(cluster)
        waits = await asleep(readers)
        cluster.append(1, VALUE)
        assert await waits[1] == [0]
        assert len(cluster.sent[0].offsets) == 2
        waits[0].cancel()

    on_virtual_time(work)


def test_two_readers_of_a_partition_do_not_mix_their_records() -> None:
    async def work() -> None:
        cluster = ScriptedCluster(1)
        one, other = reader_of(cluster, 0), reader_of(cluster, 0)
        for _ in range(4):
            cluster.append(0, VALUE)
        await one.seek(0)
        await other.seek(2)
        assert await asyncio.gather(offsets(one), offsets(other)) == [[0, 1, 2, 3], [2, 3]]

    on_virtual_time(work)
