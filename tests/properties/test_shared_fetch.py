"""Whatever happens, an owner gets each record once and in order from its partition, and no partition starves."""

import asyncio
from random import Random

from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.scripted_cluster import TOPIC, ScriptedCluster, on_virtual_time

from waypost_worker.kafka.partition_reader import PartitionReader
from waypost_worker.partition.ports import UnavailableError

LIVE_SECONDS = 3.0
# A fetch under way may be a short one, followed by a round of others that gathers.
SOON = 0.05
NOT_LEADER, CORRUPT, UNKNOWN_TOPIC_ID = 6, 2, 100


class Owner:
    """Takes records as an owner does, and now and then moves, closes its log or takes long."""

    def __init__(self, cluster: ScriptedCluster, partition: int, random: Random, *, disturbed: bool) -> None:
        self.partition = partition
        self.position = 0
        self.published_at: list[float] = []
        self.latest = 0.0  # the longest that an owner waited for a record that was there
        self.closed = False
        self._cluster = cluster
        self._random = random
        self._disturbed = disturbed
        self._reader = self._new_reader()

    def _new_reader(self) -> PartitionReader:
        where = TopicPartition(TOPIC, self.partition)
        return PartitionReader(self._cluster, where, "read_committed", is_live=True)

    @property
    def is_done(self) -> bool:
        return self.position == self._cluster.logs[self.partition].end

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        draw = self._random.random
        await self._reader.seek(0)
        while not self.closed:
            since = loop.time()
            try:
                records = await self._reader.get(1000, self._random.choice([1, 3, 50]))
            except UnavailableError:
                assert self._disturbed
                records = []
            for record in records:
                assert record.offset == self.position, "a record is missing, or comes twice"
                self.position += 1
            if records:
                there = max(since, self.published_at[records[0].offset])
                self.latest = max(self.latest, loop.time() - there)
            if loop.time() > LIVE_SECONDS:
                continue
            if draw() < 0.5:
                await asyncio.sleep(0.02 * draw())
            if draw() < 0.03:
                await asyncio.sleep(0.5 * draw())
            if draw() < 0.05:
                self.position = max(0, self.position - self._random.randrange(30))
                await self._reader.seek(self.position)
            if draw() < 0.03:
                await self._reader.close()
                self._reader = self._new_reader()
                await self._reader.seek(self.position)
        await self._reader.close()


async def publish(cluster: ScriptedCluster, owner: Owner, random: Random) -> None:
    loop = asyncio.get_running_loop()
    often = random.choice([0.002, 0.02, 0.3])
    size = random.choice([100, 100, 20_000, 700_000])
    while loop.time() < LIVE_SECONDS:
        await asyncio.sleep(2 * often * random.random())
        values = [bytes(size)] * random.choice([1, 1, 5])
        owner.published_at += [loop.time()] * len(values)
        cluster.append(owner.partition, values)
        if size > 100_000 and random.random() < 0.9:
            often = 0.3


async def disturb(cluster: ScriptedCluster, random: Random) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < LIVE_SECONDS:
        await asyncio.sleep(0.4 * random.random())
        partition = random.choice(list(cluster.logs))
        match random.randrange(4):
            case 0:
                cluster.break_connections()
            case 1:
                cluster.move(partition, random.choice([1, 2]))
            case 2:
                cluster.logs[partition].errors.append(random.choice([NOT_LEADER, CORRUPT, UNKNOWN_TOPIC_ID]))
            case _:
                cluster.starts += 1


async def live(random: Random, *, disturbed: bool) -> list[Owner]:
    cluster = ScriptedCluster(random.choice([1, 2, 5]), nodes=random.choice([(1,), (1, 2)]))
    owners = [Owner(cluster, number, random, disturbed=disturbed) for number in cluster.logs]
    running = [asyncio.create_task(owner.run()) for owner in owners]
    await asyncio.gather(
        *(publish(cluster, owner, random) for owner in owners),
        *([disturb(cluster, random)] if disturbed else []),
    )
    for _ in range(200):
        if all(owner.is_done for owner in owners):
            break
        await asyncio.sleep(0.1)
    assert all(owner.is_done for owner in owners), [owner.position for owner in owners]
    for owner in owners:
        owner.closed = True
    await asyncio.gather(*running)
    return owners


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_each_record_comes_once_and_soon(seed: int) -> None:
    owners = on_virtual_time(lambda: live(Random(seed), disturbed=False))
    assert max(owner.latest for owner in owners) < SOON


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_each_record_comes_once_whatever_breaks(seed: int) -> None:
    on_virtual_time(lambda: live(Random(seed), disturbed=True))
