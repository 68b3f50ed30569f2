"""How many records a session may hold, as far as a process knows: never too few, and none counted twice for long."""

from types import SimpleNamespace
from typing import Any

import pytest

from waypost.adapters.known_sessions import KnownSessions, SessionFullError
from waypost.adapters.own_writes import OwnWrites
from waypost.adapters.records import POLICY
from waypost.adapters.room import Room


def test_records_that_were_counted_as_applied_and_as_unapplied_count_once_at_the_next_look() -> None:
    known = KnownSessions()
    assert known.seen("s", counter=20, live=20, unapplied=17, now=0) == 37
    assert not known.has_room("s", 1, 30, 0)
    assert known.seen("s", counter=20, live=20, unapplied=0, now=1) == 20
    assert known.has_room("s", 10, 30, 1)


def test_records_whose_numbers_are_known_count_although_a_look_began_before_them() -> None:
    known = KnownSessions()
    known.seen("s", counter=20, live=15, unapplied=0, now=0)
    assert known.numbered("s", ["s:21", "s:24"]) == [21, 24]
    assert known.seen("s", counter=20, live=15, unapplied=0, now=1) == 19
    assert known.seen("s", counter=24, live=19, unapplied=0, now=2) == 19


async def test_a_write_that_is_settled_during_a_look_counts() -> None:
    own = OwnWrites()
    write = own.add("s", [], records=5)
    counts = [10, 15]

    async def session_info(_: str) -> Any:
        own.drop(write)  # what the answer says is from before
        return SimpleNamespace(policy=POLICY, last_number=counts[0], checkpoint_count=counts.pop(0))

    async def nothing(_: str) -> None:
        pass

    made: Any = (
        SimpleNamespace(reader=SimpleNamespace(session_info=session_info)),
        SimpleNamespace(own=own),
        KnownSessions(),
        SimpleNamespace(caught_up=nothing, settled=nothing),
    )
    room = Room(*made)
    with pytest.raises(SessionFullError, match="holds 15 records, and 1 more would exceed 15"):
        await room.make("s", 1, 15, "Clear it")
    with pytest.raises(SessionFullError, match="holds 15 records"):
        await room.make("s", 1, 15, "Clear it")
