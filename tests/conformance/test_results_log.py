"""What an owner may rely on in any ResultsLog: the fence above all, and that reading shows the truth."""

import asyncio

import pytest
from tests.conformance.worlds import World

from waypost_worker.partition.ports import (
    Fence,
    FencedError,
    FetchedResult,
    OwnerError,
    RefusedError,
    ResultRecord,
    ResultsLog,
    UnavailableError,
)


def record(text: str) -> ResultRecord:
    return ResultRecord(b"key", text.encode(), [("ce_id", text.encode())])


async def claimed(world: World) -> ResultsLog:
    log = world.results()
    await log.claim()
    return log


async def read(log: ResultsLog, first: int, end: int) -> list[FetchedResult]:
    return [found async for piece in log.read(first, end) for found in piece]


async def texts(world: World) -> list[str]:
    log = world.results()
    return [found.value.decode() for found in await read(log, *await log.bounds())]


# Claiming.


async def test_every_claim_gets_a_higher_epoch_of_the_same_producer(world: World) -> None:
    fences = [await world.results().claim() for _ in range(3)]
    assert len({fence.producer_id for fence in fences}) == 1
    assert [fence.producer_epoch for fence in fences] == sorted({fence.producer_epoch for fence in fences})


async def test_a_claim_alone_writes_nothing(world: World) -> None:
    log = await claimed(world)
    assert await log.bounds() == (0, 0)


# The broker's clock.


async def test_an_append_returns_the_brokers_time(world: World) -> None:
    log = await claimed(world)
    assert log.broker_time is None
    await log.append([record("first")])
    first = log.broker_time
    await log.append([record("second")])
    assert first is not None
    assert log.broker_time is not None
    assert log.broker_time >= first > 1_700_000_000


# The fence.


async def test_a_zombie_cannot_append_behind_the_fence_record(world: World) -> None:
    zombie = await claimed(world)
    await zombie.append([record("before")])
    owner = await claimed(world)
    await owner.append([record("fence")])
    with pytest.raises(FencedError):
        await zombie.append([record("zombie")])
    await owner.append([record("after")])
    assert await texts(world) == ["before", "fence", "after"]


async def test_a_zombie_that_never_appended_is_fenced_too(world: World) -> None:
    zombie = await claimed(world)
    owner = await claimed(world)
    await owner.append([record("fence")])
    with pytest.raises(FencedError):
        await zombie.append([record("zombie")])
    assert await texts(world) == ["fence"]


async def test_what_an_older_owner_appends_after_the_claim_lies_before_the_fence_record(world: World) -> None:
    older = await claimed(world)
    newer = await claimed(world)
    at = await older.append([record("late")])
    fence_at = await newer.append([record("fence")])
    assert at < fence_at
    assert [found.value for found in await read(newer, 0, fence_at)] == [b"late"]
    with pytest.raises(FencedError):
        await older.append([record("zombie")])


async def test_a_fenced_owner_stays_refused(world: World) -> None:
    zombie = await claimed(world)
    await (await claimed(world)).append([record("fence")])
    for _ in range(2):
        with pytest.raises((FencedError, UnavailableError)):
            await zombie.append([record("zombie")])
    assert await texts(world) == ["fence"]


async def test_of_racing_claimants_the_highest_epoch_has_the_last_word(world: World) -> None:
    async def race() -> tuple[Fence, str, ResultsLog]:
        log = world.results()
        fence = await log.claim()
        try:
            await log.append([record(f"{fence.producer_epoch}")])
        except FencedError:
            return fence, "fenced", log
        return fence, "appended", log

    raced = await asyncio.gather(*(race() for _ in range(5)))
    raced.sort(key=lambda one: one[0].producer_epoch)
    assert len({fence.producer_epoch for fence, _, _ in raced}) == 5
    *older, (highest, outcome, owner) = raced
    assert outcome == "appended"
    landed = await texts(world)
    assert landed == sorted(landed, key=int)
    assert landed[-1] == str(highest.producer_epoch)
    for _, _, log in older:
        with pytest.raises(OwnerError):
            await log.append([record("zombie")])
    await owner.append([record("still the owner")])
    assert (await texts(world))[-1] == "still the owner"


async def test_claiming_again_supersedes_the_own_claim(world: World) -> None:
    log = await claimed(world)
    await log.append([record("first term")])
    await log.claim()
    await log.append([record("second term")])
    assert await texts(world) == ["first term", "second term"]


# Appending.


async def test_an_append_gives_the_offset_of_its_first_record_and_leaves_no_gaps(world: World) -> None:
    log = await claimed(world)
    assert await log.append([record("0")]) == 0
    assert await log.append([record("1"), record("2"), record("3")]) == 1
    assert await log.append([record("4")]) == 4
    assert [(found.offset, found.value) for found in await read(log, 0, 5)] == [
        (n, b"%d" % n) for n in range(5)
    ]


async def test_key_value_and_headers_come_back_byte_for_byte(world: World) -> None:
    log = await claimed(world)
    headers = [("ce_id", b"\x00\xff"), ("ce_id", b"again"), ("empty", b"")]
    await log.append([ResultRecord(None, b"", headers), ResultRecord("ß".encode(), b"\x00\xfe", [])])
    first, second = await read(log, 0, 2)
    assert (first.key, first.value, list(first.headers)) == (None, b"", headers)
    assert (second.key, second.value, list(second.headers)) == ("ß".encode(), b"\x00\xfe", [])


async def test_a_result_of_many_megabytes_is_taken(world: World) -> None:
    log = await claimed(world)
    large = b"x" * 12_000_000
    await log.append([ResultRecord(b"key", large, [])])
    (found,) = await read(log, 0, 1)
    assert found.value == large


async def test_after_a_canceled_append_nothing_more_is_appended(world: World) -> None:
    log = await claimed(world)
    append = asyncio.create_task(log.append([record("perhaps")]))
    await asyncio.wait({append}, timeout=0)
    append.cancel()
    with pytest.raises(asyncio.CancelledError):
        await append
    with pytest.raises(UnavailableError):
        await log.append([record("never")])
    await (await claimed(world)).append([record("fence")])
    assert [text for text in await texts(world) if text != "perhaps"] == ["fence"]


async def test_after_close_nothing_is_appended(world: World) -> None:
    log = await claimed(world)
    await log.close()
    with pytest.raises(UnavailableError):
        await log.append([record("never")])
    await log.close()
    assert await texts(world) == []


async def test_closing_without_a_claim_is_fine(world: World) -> None:
    await world.results().close()


async def test_an_unanswered_append_is_waited_for_some_time(world: World) -> None:
    assert world.results().unanswered_append_seconds > 0


# Reading.


async def test_bounds_follow_what_is_appended_and_trimmed(world: World) -> None:
    log = await claimed(world)
    await log.append([record(str(n)) for n in range(10)])
    assert await log.bounds() == (0, 10)
    await world.trim_results(4)
    assert await log.bounds() == (4, 10)


async def test_reading_stops_before_the_end_that_was_asked_for(world: World) -> None:
    log = await claimed(world)
    for n in range(6):
        await log.append([record(str(n))])
    await log.append([record(str(n)) for n in range(6, 9)])
    assert [found.offset for found in await read(log, 2, 7)] == [2, 3, 4, 5, 6]


async def test_an_empty_range_reads_as_nothing(world: World) -> None:
    log = await claimed(world)
    await log.append([record("only")])
    assert await read(log, 0, 0) == []
    assert await read(log, 1, 1) == []


async def test_offsets_without_a_record_are_passed_over(world: World) -> None:
    log = await claimed(world)
    await log.append([record("0")])
    await world.leave_gap_in_results()
    at = await log.append([record("behind the gap")])
    found = await read(log, 0, at + 1)
    assert [one.value for one in found] == [b"0", b"foreign", b"behind the gap"]
    assert at > 2
    assert [one.value for one in await read(log, 0, at)] == [b"0", b"foreign"]


async def test_many_records_come_in_order_and_once(world: World) -> None:
    log = await claimed(world)
    for n in range(0, 12_000, 3000):
        await log.append([record(str(m)) for m in range(n, n + 3000)])
    assert [int(found.value) for found in await read(log, 0, 12_000)] == list(range(12_000))


async def test_a_reader_may_stop_early_and_read_again(world: World) -> None:
    log = await claimed(world)
    await log.append([record(str(n)) for n in range(10)])
    async for piece in log.read(0, 10):
        assert piece[0].offset == 0
        break
    assert len(await read(log, 3, 10)) == 7


async def test_reading_what_retention_removed_is_refused(world: World) -> None:
    log = await claimed(world)
    await log.append([record(str(n)) for n in range(10)])
    await world.trim_results(4)
    with pytest.raises(RefusedError):
        await read(log, 3, 10)
    assert len(await read(log, 4, 10)) == 6
