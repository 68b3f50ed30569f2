"""What an owner may rely on in any CommandLog: every record once and in order, and never a silent reset."""

import asyncio
from collections.abc import Sequence

import pytest
from aiokafka.errors import KafkaError
from tests.conformance.worlds import PARTITIONS, World
from tests.support.timeouts import PATIENCE

from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition.ports import CommandLog, RefusedError


def values(count: int, first: int = 0) -> list[bytes | None]:
    return [b"%d" % n for n in range(first, first + count)]


async def fetch(log: CommandLog, count: int, most: int = 1000) -> list[KafkaRecord]:
    """Fetch until so many records are there; at most a minute's worth of empty fetches."""
    found: list[KafkaRecord] = []
    for _ in range(60):
        found += await log.fetch(most)
        if len(found) >= count:
            break
    return found


def offsets(records: Sequence[KafkaRecord]) -> list[int]:
    return [record.offset for record in records]


async def at(world: World, offset: int) -> CommandLog:
    log = world.commands()
    await log.seek(offset)
    return log


# Where the log begins and ends.


async def test_the_partition_count_is_the_topics(world: World) -> None:
    assert await world.commands().partitions() == PARTITIONS


async def test_bounds_follow_what_is_published_and_trimmed(world: World) -> None:
    log = world.commands()
    assert await log.bounds() == (0, 0)
    await world.publish(values(10))
    assert await log.bounds() == (0, 10)
    await world.trim_commands(6)
    assert await log.bounds() == (6, 10)


async def test_the_end_is_what_a_reader_may_see(world: World) -> None:
    await world.publish(values(2))
    transaction = await world.begin([b"open"])
    await world.publish(values(2))
    log = world.commands()
    assert await log.bounds() == (0, 2)
    await transaction.commit()
    assert await log.bounds() == (0, 6)


# Fetching.


async def test_fetching_gives_every_record_once_and_in_order(world: World) -> None:
    await world.publish(values(2500))
    log = await at(world, 0)
    found = await fetch(log, 2500, most=700)
    assert offsets(found) == list(range(2500))
    assert [record.value for record in found] == values(2500)


async def test_after_a_few_records_the_next_fetch_brings_all_that_came_meanwhile(world: World) -> None:
    await world.publish(values(1))
    log = await at(world, 0)
    assert offsets(await fetch(log, 1)) == [0]
    for number in range(1, 6):
        await world.publish(values(1, number))
    assert offsets(await log.fetch(100)) == [1, 2, 3, 4, 5]


async def test_a_fetch_gives_no_more_than_was_asked_for(world: World) -> None:
    await world.publish(values(10))
    log = await at(world, 0)
    assert offsets(await log.fetch(4)) == [0, 1, 2, 3]
    assert offsets(await log.fetch(100)) == [4, 5, 6, 7, 8, 9]


async def test_fetching_continues_with_commands_that_are_published_meanwhile(world: World) -> None:
    log = await at(world, 0)
    waiting = asyncio.create_task(fetch(log, 3))
    await world.publish(values(3))
    assert offsets(await waiting) == [0, 1, 2]
    await world.publish(values(2, first=3))
    assert offsets(await fetch(log, 2)) == [3, 4]


async def test_a_fetch_from_the_end_gives_nothing_after_a_bounded_time(world: World) -> None:
    await world.publish(values(3))
    log = await at(world, 3)
    async with asyncio.timeout(PATIENCE):
        assert await log.fetch(10) == []


async def test_seek_goes_forward_and_back(world: World) -> None:
    await world.publish(values(10))
    log = await at(world, 7)
    assert offsets(await fetch(log, 3)) == [7, 8, 9]
    await log.seek(2)
    assert offsets(await fetch(log, 8)) == [2, 3, 4, 5, 6, 7, 8, 9]
    await log.seek(4)
    assert offsets(await log.fetch(1)) == [4]
    await log.seek(9)
    assert offsets(await fetch(log, 1)) == [9]


async def test_two_owners_fetch_independently(world: World) -> None:
    await world.publish(values(5))
    one, other = await at(world, 0), await at(world, 3)
    assert offsets(await fetch(one, 5)) == [0, 1, 2, 3, 4]
    assert offsets(await fetch(other, 2)) == [3, 4]


async def test_a_record_comes_as_it_was_written(world: World) -> None:
    await world.publish([b"\x00\xff", None, b""])
    records = await fetch(await at(world, 0), 3)
    assert [record.value for record in records] == [b"\x00\xff", None, b""]
    assert {record.key for record in records} == {b"key"}
    assert {tuple(record.headers) for record in records} == {(("name", b"value"),)}


async def test_a_record_carries_the_time_of_the_log_and_always_the_same(world: World) -> None:
    await world.publish(values(3))
    log = await at(world, 0)
    times = [record.timestamp for record in await fetch(log, 3)]
    assert times == sorted(times)
    assert times[0] > 0
    await log.seek(0)
    assert [record.timestamp for record in await fetch(log, 3)] == times
    assert [record.timestamp for record in await log.read(0, 3)] == times


# Agents' transactions.


async def test_aborted_commands_are_never_seen(world: World) -> None:
    await world.publish(values(2))
    await (await world.begin([b"aborted", b"aborted"])).abort()
    (behind,) = await world.publish([b"behind"])
    found = await fetch(await at(world, 0), 3)
    assert [record.value for record in found] == [b"0", b"1", b"behind"]
    assert offsets(found) == [0, 1, behind]
    assert behind > 4


async def test_commands_of_an_open_transaction_hold_back_what_follows(world: World) -> None:
    transaction = await world.begin([b"open"])
    await world.publish([b"behind"])
    log = await at(world, 0)
    assert await log.fetch(10) == []
    await transaction.commit()
    assert [record.value for record in await fetch(log, 2)] == [b"open", b"behind"]


async def test_seek_into_a_gap_continues_behind_it(world: World) -> None:
    await (await world.begin([b"aborted"])).abort()
    (behind,) = await world.publish([b"behind"])
    assert offsets(await fetch(await at(world, 1), 1)) == [behind]


# How far it has come.


async def test_progress_is_the_offset_of_the_next_fetch(world: World) -> None:
    await world.publish(values(10))
    log = await at(world, 2)
    assert log.progress.position == 2
    assert offsets(await log.fetch(3)) == [2, 3, 4]
    assert log.progress.position == 5
    await fetch(log, 5)
    assert log.progress == (10, 10, 10)
    await log.seek(4)
    assert log.progress.position == 4


@pytest.mark.parametrize("commit", [True, False], ids=["committed", "aborted"])
async def test_progress_leaves_the_marker_of_a_transaction_behind(world: World, commit: bool) -> None:
    """Nothing waits there, so nothing must count as lag."""
    transaction = await world.begin([b"last", b"last"])
    await (transaction.commit() if commit else transaction.abort())
    log = await at(world, 0)
    async with asyncio.timeout(PATIENCE):
        while log.progress.position < 3:
            await log.fetch(10)
    assert log.progress == (3, 3, 3)
    assert log.progress.held_back == 0


async def test_progress_shows_what_an_open_transaction_holds_back(world: World) -> None:
    await world.publish(values(2))
    transaction = await world.begin([b"open"])
    await world.publish(values(3))
    log = await at(world, 0)
    assert offsets(await fetch(log, 2)) == [0, 1]
    assert await log.fetch(10) == []
    assert log.progress == (2, 2, 6)
    assert log.progress.held_back == 4
    await transaction.commit()
    await fetch(log, 4)
    async with asyncio.timeout(PATIENCE):
        while log.progress.held_back or log.progress.position < 7:
            await log.fetch(10)
    assert log.progress == (7, 7, 7)


# Reading a stretch.


async def test_reading_gives_exactly_the_stretch(world: World) -> None:
    await world.publish(values(20))
    log = world.commands()
    assert offsets(await log.read(5, 9)) == [5, 6, 7, 8]
    assert offsets(await log.read(19, 20)) == [19]
    assert await log.read(7, 7) == []


async def test_reading_does_not_disturb_fetching(world: World) -> None:
    await world.publish(values(20))
    log = await at(world, 10)
    assert offsets(await log.fetch(2)) == [10, 11]
    assert offsets(await log.read(0, 3)) == [0, 1, 2]
    assert offsets(await log.fetch(2)) == [12, 13]


async def test_a_stretch_may_begin_and_end_in_gaps(world: World) -> None:
    await (await world.begin([b"aborted"])).abort()
    (between,) = await world.publish([b"between"])
    await (await world.begin([b"aborted"])).abort()
    log = world.commands()
    _, end = await log.bounds()
    assert offsets(await log.read(1, end)) == [between]
    assert await log.read(between + 1, end) == []


async def test_many_records_are_read_in_order_and_once(world: World) -> None:
    await world.publish(values(12_000))
    assert offsets(await world.commands().read(100, 11_900)) == list(range(100, 11_900))


# Never a silent reset.


async def test_a_position_that_retention_removed_is_refused_and_not_reset(world: World) -> None:
    await world.publish(values(10))
    await world.trim_commands(6)
    log = await at(world, 5)
    for _ in range(2):
        with pytest.raises(RefusedError, match="5"):
            await fetch(log, 1)
    with pytest.raises(RefusedError, match="5"):
        await log.read(5, 6)
    await log.seek(6)
    assert offsets(await fetch(log, 4)) == [6, 7, 8, 9]


async def test_a_position_behind_the_end_is_refused_and_not_reset(world: World) -> None:
    await world.publish(values(3))
    log = await at(world, 50)
    with pytest.raises(RefusedError, match="50"):
        await fetch(log, 1)
    with pytest.raises(RefusedError, match="50"):
        await log.read(50, 51)


async def test_a_position_that_is_trimmed_while_it_waits_is_refused(world: World) -> None:
    await world.publish(values(10))
    log = await at(world, 2)
    assert offsets(await log.fetch(2)) == [2, 3]
    await world.trim_commands(8)
    await log.seek(4)
    with pytest.raises(RefusedError):
        await fetch(log, 1)


# Several partitions of one process.


async def test_owners_of_several_partitions_each_get_their_own_records(world: World) -> None:
    logs = [world.commands(partition) for partition in range(PARTITIONS)]
    for partition, log in enumerate(logs):
        await log.seek(0)
        await world.publish(values(300, first=1000 * partition), partition)
    found = await asyncio.gather(*(fetch(log, 300, most=70) for log in logs))
    assert [[record.value for record in records] for records in found] == [
        values(300, first=1000 * partition) for partition in range(PARTITIONS)
    ]


async def test_owners_that_ask_together_learn_the_bounds_of_their_own_partitions(world: World) -> None:
    await world.publish(values(3), 0)
    await world.publish(values(5), 1)
    await world.trim_commands(2)
    logs = [world.commands(partition) for partition in (0, 1, 1, 0)]
    assert await asyncio.gather(*(log.bounds() for log in logs)) == [(0, 3), (2, 5), (2, 5), (0, 3)]


async def test_an_owner_that_takes_nothing_holds_nobody_up(world: World) -> None:
    await world.publish(values(50), 0)
    idle, log = world.commands(0), await at(world, 0)
    await idle.seek(0)
    assert offsets(await idle.fetch(10)) == list(range(10))
    for number in range(20):
        await world.publish(values(1, number))
        assert offsets(await fetch(log, 1)) == [number]
    assert offsets(await fetch(idle, 40)) == list(range(10, 50))


async def test_a_partition_that_is_acquired_while_another_waits_is_fetched(world: World) -> None:
    other = await at(world, 0)
    waiting = asyncio.create_task(fetch(other, 1))
    await world.publish(values(5), 0)
    late = world.commands(0)
    await late.seek(0)
    assert offsets(await late.fetch(10)) == [0, 1, 2, 3, 4]
    await world.publish(values(1))
    assert offsets(await waiting) == [0]


async def test_a_refused_partition_and_a_closed_one_leave_the_others_alone(world: World) -> None:
    await world.publish(values(3), 0)
    await world.publish(values(3))
    log, closed, refused = await at(world, 0), world.commands(0), world.commands(0)
    await closed.seek(0)
    await closed.fetch(1)
    await closed.close()
    await refused.seek(50)
    (found, error) = await asyncio.gather(fetch(log, 3), fetch(refused, 1), return_exceptions=True)
    assert isinstance(error, RefusedError)
    assert not isinstance(found, BaseException)
    assert offsets(found) == [0, 1, 2]


# Another topic of the same name.


async def refill(world: World, count: int) -> None:
    """Replace the topic, and fill the new one."""
    await world.recreate_commands()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await world.publish(values(count, first=1000))
            except KafkaError:  # the producer met what is left of the former topic
                continue
            return


async def test_a_topic_that_took_the_place_of_another_is_not_fetched_from(world: World) -> None:
    await world.publish(values(5))
    log = await at(world, 0)
    assert offsets(await fetch(log, 5)) == [0, 1, 2, 3, 4]
    await refill(world, 10)
    with pytest.raises(RefusedError, match="created again"):
        await fetch(log, 1)


async def test_a_topic_that_took_the_place_of_another_is_not_read_by_an_owner_of_the_former(
    world: World,
) -> None:
    await world.publish(values(5))
    log = world.commands()
    await log.partitions()
    await refill(world, 10)
    with pytest.raises(RefusedError, match="created again"):
        await log.read(4, 5)
    await log.seek(5)
    with pytest.raises(RefusedError, match="created again"):
        await fetch(log, 1)


# Closing.


async def test_closing_is_fine_at_any_time_and_twice(world: World) -> None:
    never_used = world.commands()
    await never_used.close()
    used = await at(world, 0)
    await used.close()
    await used.close()
