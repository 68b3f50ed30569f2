"""What an owner may rely on in any Store when a session is erased: a tombstone stays, and rejected commands go."""

from tests.conformance.stores import MOMENT, Stores, acquired, entry, puts

from waypost.model.index import SeenCommand, Session
from waypost_worker.partition.ports import Changes, RejectedRow, RejectedWindow

ERASED_AT = -1_234_567  # before 1970, where it is easily wrong


def tombstone(session_id: str, *recent: SeenCommand, at: int = ERASED_AT) -> Session:
    return Session.restore(session_id, 3, None, [], list(recent), MOMENT, at)


def rejection(offset: int, session_id: str | None) -> RejectedRow:
    return RejectedRow(offset, session_id, None, "c", "m", b"k", b"v", [("h", b"x")], MOMENT)


async def test_a_tombstone_is_loaded_with_its_time_and_stays(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit(puts("s", [entry(1), entry(2, pinned=True)]))
    await hand.commit(puts("t", [entry(1)]))
    erase = SeenCommand(20, "erase", None)
    changes = Changes(
        drops={("s", 1): None, ("s", 2): None},
        sessions={"s": (tombstone("s", erase), MOMENT)},
        forgotten={"s": 20},
        remembered=[("s", erase)],
        erased={"s": 20},
    )
    await hand.commit(changes)
    for _ in range(2):
        found = await (await stores.open()).load(["s", "t"])
        assert (found["s"].erased_at, found["t"].erased_at) == (ERASED_AT, None)
        assert (found["s"].live(), found["s"].recent, found["s"].counter) == ([], [erase], 3)
        assert len(found["t"]) == 1
        # A batch that touches it again, and others with it, leaves the time as it is.
        again = puts("u", [entry(1)])
        again.sessions["s"] = (tombstone("s", erase), MOMENT + 1)
        await hand.commit(again)
        await hand.commit(Changes(drops={("u", 1): None}))


async def test_a_session_may_be_erased_at_the_epoch(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit(Changes(sessions={"s": (tombstone("s", at=0), 0)}, erased={"s": 5}))
    assert (await (await stores.open()).load(["s"]))["s"].erased_at == 0


async def test_rejected_commands_of_an_erased_session_go_and_all_others_stay(stores: Stores) -> None:
    hand = await acquired(stores)
    elsewhere = await acquired(stores, 1)
    await elsewhere.commit(Changes(rejected=[rejection(2, "s")]))
    sessions = {1: "s", 2: "t", 3: None, 4: "s"}
    await hand.commit(Changes(rejected=[rejection(offset, name) for offset, name in sessions.items()]))
    changes = Changes(sessions={"s": (tombstone("s"), MOMENT)}, erased={"s": 13})
    changes.rejected = [rejection(11, "s"), rejection(12, "t"), rejection(14, "s")]
    await hand.commit(changes)
    assert await stores.rejected(0) == [2, 3, 12, 14]
    assert await stores.rejected(1) == [2]
    await hand.commit(Changes())
    assert await stores.rejected(0) == [2, 3, 12, 14]


async def test_an_erasure_and_room_for_newer_ones_go_together(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit(
        Changes(rejected=[rejection(offset, "s" if offset % 2 else "t") for offset in range(8)])
    )
    changes = Changes(sessions={"s": (tombstone("s"), MOMENT)}, erased={"s": 7})
    changes.rejected_below, changes.rejected_window = 4, RejectedWindow(0, ((4, 4),), 10)
    await hand.commit(changes)
    assert await stores.rejected(0) == [4, 6, 7]


async def test_an_erasure_of_several_sessions_in_several_partitions(stores: Stores) -> None:
    hands = [await acquired(stores, partition) for partition in range(2)]
    for number, hand in enumerate(hands):
        names = [f"{name}{number}" for name in "abc"]
        await hand.commit(Changes(rejected=[rejection(offset, name) for offset, name in enumerate(names)]))
        erased = names[:2]
        tombs = {name: (tombstone(name), MOMENT) for name in erased}
        await hand.commit(Changes(sessions=tombs, erased=dict.fromkeys(erased, 9)))
        assert await stores.rejected(number) == [2]
