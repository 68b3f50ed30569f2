"""A session as an index: what comes back from the store, in which order it is looked at, what its refusals advise."""

import pytest
from tests.unit.life import Life, expect, item

from waypost.model.commands import (
    Command,
    Configure,
    ConfigureDefaults,
    Delete,
    Erase,
    Import,
    Pin,
    Unpin,
)
from waypost.model.decisions import Deleted, Rejected
from waypost.model.index import Entry, SeenCommand, Session
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide, evolve


def entry(number: int) -> Entry:
    return Entry(number, "n", 0, 0, number, f"command-{number}")


def falling(count: int) -> list[Entry]:
    """Entries from the highest number to 1: half of them with a command id, three in four imported, some pinned."""
    origins = ("", "old:1", "old:2", None)
    return [
        Entry(
            number,
            "n",
            taken_at=0,
            recorded_at=0,
            position=number,
            command_id=f"command-{number}" if number % 2 else None,
            imported_id=origins[number % 4],
            pinned=number % 5 == 0,
        )
        for number in range(count, 0, -1)
    ]


def everything(session: Session) -> dict[str, object]:
    """All that an index holds, each list in its order."""
    return {name: getattr(session, name) for name in Session.__slots__}


def test_a_restored_session_has_its_id_counter_policy_and_memory() -> None:
    remembered = [SeenCommand(9, "nine", None), SeenCommand(4, "four", 1)]
    session = Session.restore("s", 7, RetentionPolicy(max_checkpoints=9), [entry(5), entry(2)], remembered)
    assert (session.session_id, session.counter, session.policy) == (
        "s",
        7,
        RetentionPolicy(max_checkpoints=9),
    )
    assert [one.number for one in session.live()] == [2, 5]
    assert session.recent == [SeenCommand(4, "four", 1), SeenCommand(9, "nine", None)]
    assert session.find("s:5") == entry(5)
    assert (session.number_of("command-5"), session.number_of("four")) == (5, 1)


def test_an_erased_session_is_restored_from_its_row_as_it_was() -> None:
    life = Life()
    life.imports(item("old:1"), at=5)
    life.pins(1)
    life.does(Erase(), at=20)
    erased = life.session
    restored = Session.restore("s", 1, None, [], erased.recent[:], 20_000_000, 20_000_000)
    assert everything(restored) == everything(erased)


@pytest.mark.parametrize("counter", [7, 1_000])
def test_many_entries_are_added_together_as_one_by_one(counter: int) -> None:
    together, singly = Session("s", counter), Session("s", counter)
    together.add_all(falling(100))
    for one in falling(100):
        singly.add(one)
    assert everything(together) == everything(singly)
    assert (together.live_in_order(), together.pins()) == (list(range(1, 101)), 20)
    assert together.counter == max(counter, 100)
    assert together.find("old:1") == together.entries[97]
    assert together.number_of("command-9") == 9


def test_many_entries_are_dropped_together_as_one_by_one() -> None:
    together, singly = Session("s"), Session("s")
    together.add_all(falling(100))
    singly.add_all(falling(100))
    numbers = [number for number in range(1, 101) if number % 6]
    assert together.drop_all(numbers) == [
        remembered for number in numbers if (remembered := singly.drop(number)) is not None
    ]
    assert everything(together) == everything(singly)
    assert (together.live_in_order(), together.pins()) == (list(range(6, 97, 6)), 3)
    assert (together.find("old:1"), together.find("old:2")) == (None, together.entries[90])


def test_pins_are_counted_once_each() -> None:
    life = Life()
    life.creates(*"abcd")
    life.pins(1, 2, 3, 3)
    assert life.session.pins() == 3
    life.does(Unpin("s:2"))
    life.does(Unpin("s:2"))
    assert life.session.pins() == 2
    life.does(Delete("s:3"))
    assert life.session.pins() == 1


def test_a_new_session_follows_the_policy_it_is_given() -> None:
    assert Session("s", 3, RetentionPolicy(max_checkpoints=9)).policy == RetentionPolicy(max_checkpoints=9)


def test_live_numbers_come_rising_or_latest_first() -> None:
    life = Life()
    life.creates(*"abc")
    assert life.session.live_in_order() == [1, 2, 3]
    assert life.session.live_in_order(latest_first=True) == [3, 2, 1]


def test_deleting_makes_the_store_remember_the_command_that_made_the_checkpoint() -> None:
    life = Life()
    life.creates("a")
    delete = Command("delete", 2, 0, 0, Delete("s:1"))
    decision = expect(Deleted, decide(life.session, delete, life.default))
    memory = evolve(life.session, delete, decision)
    assert memory.added == (SeenCommand(1, "command-1", 1), SeenCommand(2, "delete", 1))
    assert memory.forgotten_below is None


def test_what_an_import_skipped_is_named_with_its_item() -> None:
    life = Life()
    life.creates("a")
    imported = life.imports(item("s:1"))
    assert [(one.number, one.outcome, one.entry, one.item) for one in imported.placed] == [
        (1, "skipped", None, item("s:1"))
    ]


def refusal(life: Life, action: Import | Configure | Pin) -> str:
    return expect(Rejected, life.does(action)).message


def test_refusals_say_what_to_do() -> None:
    life = Life(RetentionPolicy(max_checkpoints=4))
    life.creates(*"abcd")
    life.pins(1, 2)
    assert refusal(life, Configure((("max_checkpoints", 3),))) == (
        "2 checkpoints of 's' are pinned, so max_checkpoints must be at least 4: unpin some first, or choose a "
        "larger one"
    )
    assert refusal(life, Pin("s:9")) == (
        "'s' holds no checkpoint 's:9': it was never made, belongs to another session, or was removed"
    )
    assert refusal(life, Import((item("s:1"),), "reject")) == (
        "checkpoint 's:1' exists already and on_conflict is 'reject': nothing was imported; use 'skip' or "
        "'replace', or import into an empty session"
    )


def test_the_default_policy_does_not_concern_a_session() -> None:
    command = Command("id", 1, 0, 0, ConfigureDefaults((("max_checkpoints", 9),)))
    with pytest.raises(
        AssertionError, match=r"^it concerns the partition, see waypost\.model\.partition_state$"
    ):
        decide(Session("s"), command, RetentionPolicy())
