"""What a process knows of its own writes: which offsets are its own, and what Postgres may lack."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from waypost.adapters.own_writes import FIRST_OWN_NUMBER, OwnWrites
from waypost.adapters.records import Row
from waypost.sharing import SharedRequests


def row(own: OwnWrites) -> Row:
    return Row(own.next_number(), "n", b"{}", {}, datetime(2026, 11, 24, tzinfo=UTC))


def test_a_range_is_covered_if_each_of_its_offsets_is_an_own_one() -> None:
    own = OwnWrites()
    for offset in (3, 4, 6):
        own.landed(own.add("s", [], 1), 0, offset)
    assert own.cover(0, 3, 5)
    assert own.cover(0, 5, 5)
    assert not own.cover(0, 3, 7)
    assert not own.cover(0, 2, 5)
    assert not own.cover(1, 3, 4)
    assert own.passed(0, 5) == [write for write in own.of_session("s") if write.offset in (3, 4)]


def test_what_is_unapplied_is_what_lies_beyond_the_position_or_is_not_in_kafka() -> None:
    own = OwnWrites()
    writes = [own.add("s", [row(own)], 1) for _ in range(3)]
    own.add("other", [row(own)], 1)
    own.landed(writes[0], 0, 7)
    own.landed(writes[1], 0, 8)
    assert own.unapplied("s", 8) == writes[1:]
    assert [(each.rows or [])[0].number for each in own.unapplied("s", 0)] == [
        FIRST_OWN_NUMBER + n for n in (1, 2, 3)
    ]
    for write in writes:
        own.drop(write)
        own.drop(write)
        assert not own.is_open(write)
    assert own.of_session("s") == []
    assert own.partitions() == []
    assert own


def test_records_of_many_writes_that_no_worker_applies_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost.adapters.own_writes.MAX_BYTES", 3)
    own = OwnWrites()
    writes = [own.add("s", [row(own)], 1) for _ in range(4)]  # of 2 bytes
    assert own.has_unkept_outside_kafka("s")
    for offset, write in enumerate(writes):
        own.landed(write, 0, offset)
    assert not own.has_unkept_outside_kafka("s")
    assert [write.rows is None for write in writes] == [False, True, True, True]
    assert own.end_of_unkept("s") == 4
    assert not own.cover(0, 0, 2)
    assert own.cover(0, 0, 1)
    for write in writes:
        own.drop(write)
    assert (own._bytes, own.end_of_unkept("s")) == (0, 0)


async def test_a_call_gets_an_answer_that_was_asked_for_after_it_began() -> None:
    asked: list[list[str]] = []
    answering = asyncio.Event()

    async def ask(keys: list[str]) -> dict[str, int]:
        asked.append(keys)
        number = len(asked)
        await answering.wait()
        return dict.fromkeys(keys, number)

    requests = SharedRequests(ask)
    first = asyncio.create_task(requests.get("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(requests.get(key)) for key in ("a", "a", "b")]
    await asyncio.sleep(0)
    answering.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2, 2, 2]
    assert asked == [["a"], ["a", "b"]]


async def test_an_error_goes_to_all_who_asked_and_to_nobody_else() -> None:
    fails = True

    async def ask(keys: Sequence[str]) -> dict[str, int]:
        if fails:
            raise OSError("away")
        return dict.fromkeys(keys, 1)

    requests: SharedRequests[str, int] = SharedRequests(ask)
    found = await asyncio.gather(*(requests.get("a") for _ in range(2)), return_exceptions=True)
    assert [repr(each) for each in found] == ["OSError('away')"] * 2
    fails = False
    assert await requests.get("a") == 1


async def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    answering = asyncio.Event()

    async def ask(keys: Sequence[str]) -> dict[str, int]:
        await answering.wait()
        return dict.fromkeys(keys, 1)

    requests: SharedRequests[str, int] = SharedRequests(ask)
    impatient, patient = (asyncio.create_task(requests.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    answering.set()
    assert await patient == 1
    with pytest.raises(asyncio.CancelledError):
        await impatient
    await requests.stop()


def test_a_requester_serves_one_event_loop_after_another() -> None:
    async def ask(keys: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(keys, 1)

    requests: SharedRequests[str, int] = SharedRequests(ask)
    assert [asyncio.run(requests.get("a")) for _ in range(2)] == [1, 1]
