"""The memory of command ids: what is a duplicate, for how long, and what it names."""

import pytest
from tests.unit.life import Life, duplicate_of, expect, item

from waypost.model.commands import (
    Action,
    Clear,
    Command,
    Configure,
    Create,
    Delete,
    Erase,
    Expire,
    Import,
    Pin,
    Rollback,
    Unpin,
)
from waypost.model.decisions import Accepted, Created, Rejected
from waypost.model.index import DEDUP_WINDOW, FORGET_ABOVE, SeenCommand, Session
from waypost.model.retention import RetentionPolicy
from waypost.model.session import DedupChanges, decide, evolve

A = Create("a", b"{}")
SECOND = 1_000_000


def test_a_repeated_create_changes_nothing_and_names_the_first_ones_checkpoint() -> None:
    life = Life()
    life.creates("x")
    life.does(A, id="again")
    before = life.everything()
    assert duplicate_of(life.does(A, id="again")) == 2
    assert life.everything() == before


@pytest.mark.parametrize(
    ("action", "about"),
    [
        (Pin("s:1"), 1),
        (Unpin("s:2"), 2),
        (Delete("s:2"), 2),
        (Rollback("s:1", discard_later=True), 1),
        (Clear(), None),
        (Configure((("max_checkpoints", 5),)), None),
        (Import((item("s:9"),)), None),
    ],
)
def test_every_accepted_command_is_remembered_with_the_checkpoint_it_was_about(
    action: Action, about: int | None
) -> None:
    life = Life()
    life.creates("a", "b")
    life.does(action, id="again")
    before = life.everything()
    assert duplicate_of(life.does(action, id="again")) == about
    assert life.everything() == before


def test_the_id_decides_not_the_content() -> None:
    life = Life()
    life.does(A, id="again")
    assert duplicate_of(life.does(Clear(), id="again")) == 1
    assert life.numbers == [1]


def test_a_rejected_command_is_not_remembered_and_is_judged_again() -> None:
    life = Life()
    assert expect(Rejected, life.does(Pin("s:1"), id="again")).code == "unknown-checkpoint"
    life.creates("a")
    life.does(Pin("s:1"), id="again")
    assert life.names == "a*"


def test_a_duplicate_is_not_remembered_again() -> None:
    life = Life()
    life.does(Clear(), id="first")
    for _ in range(FORGET_ABOVE):
        duplicate_of(life.does(Clear(), id="first"))
    assert life.session.weight() == 1


@pytest.mark.parametrize("removal", [Delete("s:1"), Clear(), Rollback("s:1", discard_later=True)])
def test_a_create_is_still_known_after_its_checkpoint_is_gone(removal: Action) -> None:
    life = Life()
    life.does(A, id="one")
    life.does(A, id="two")
    life.does(removal)
    assert duplicate_of(life.does(A, id="one")) == 1
    assert duplicate_of(life.does(A, id="two")) == 2


def test_a_create_that_retention_dropped_is_still_known() -> None:
    life = Life(RetentionPolicy(max_checkpoints=2))
    for name in "abc":
        life.does(Create(name, b"{}"), id=name)
    assert life.numbers == [1, 3]
    assert duplicate_of(life.does(A, id="b")) == 2


def test_a_replaced_checkpoint_still_carries_the_command_that_made_it() -> None:
    life = Life()
    life.does(A, id="again")
    life.imports(item("s:1"), on_conflict="replace")
    assert duplicate_of(life.does(A, id="again")) == 1


def test_commands_without_an_id_are_never_duplicates() -> None:
    session = Session("s")
    for position in range(3):
        command = Command(None, position, 0, 0, A)
        decision = decide(session, command, RetentionPolicy())
        assert isinstance(decision, Accepted)
        evolve(session, command, decision)
    assert len(session) == 3
    assert session.recent == []


class TestTheWindow:
    def pins(self, life: Life, count: int, prefix: str = "pin") -> None:
        for index in range(count):
            life.does(Pin("s:1"), id=f"{prefix}-{index}")

    def test_live_checkpoints_are_remembered_however_many_commands_follow(self) -> None:
        life = Life()
        life.does(A, id="old")
        self.pins(life, 1_000)
        assert duplicate_of(life.does(A, id="old")) == 1

    def test_the_last_256_other_commands_are_remembered(self) -> None:
        life = Life()
        life.creates("a")
        self.pins(life, 1_000)
        assert all(life.session.knows(f"pin-{index}") for index in range(1_000 - DEDUP_WINDOW, 1_000))
        assert (DEDUP_WINDOW, FORGET_ABOVE) == (256, 320)

    def test_forgetting_is_lazy_up_to_320_then_down_to_256(self) -> None:
        life = Life()
        life.creates("a")
        self.pins(life, 320)
        assert len(life.session.recent) == 320
        assert life.session.knows("pin-0")
        life.does(Pin("s:1"), id="pin-320")
        assert [remembered.command_id for remembered in life.session.recent] == [
            f"pin-{index}" for index in range(65, 321)
        ]
        assert not life.session.knows("pin-64")

    def test_what_is_forgotten_counts_as_new(self) -> None:
        life = Life()
        life.creates("a")
        life.does(A, id="again")
        life.does(Delete("s:2"))
        self.pins(life, 400)
        assert expect(Created, life.does(A, id="again")).entry.number == 3

    def test_rejected_commands_do_not_push_anything_out(self) -> None:
        life = Life()
        life.creates("a")
        life.does(Pin("s:1"), id="keep")
        for _ in range(1_000):
            expect(Rejected, life.does(Pin("s:99")))
        assert life.session.knows("keep")

    def test_clearing_300_checkpoints_remembers_all_their_commands(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=400, compress_after=400))
        for index in range(300):
            life.does(A, id=f"create-{index}")
        life.does(Clear(), id="clear")
        assert life.session.counter == 300
        assert duplicate_of(life.does(Clear(), id="clear")) is None
        for index in range(300):
            assert duplicate_of(life.does(A, id=f"create-{index}")) == index + 1
        assert life.numbers == []

    def test_clearing_400_remembers_the_last_256_commands_the_clear_among_them(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=400, compress_after=400))
        for index in range(400):
            life.does(A, id=f"create-{index}")
        life.does(Clear(), id="clear")
        known = [index for index in range(400) if life.session.knows(f"create-{index}")]
        assert known == list(range(400 - 255, 400))
        assert life.session.knows("clear")

    def test_order_is_that_of_the_log_so_an_old_create_dropped_late_is_forgotten_first(self) -> None:
        life = Life()
        life.does(A, id="old")
        life.creates("b")
        self.pins(life, 320)
        life.does(Delete("s:1"), id="delete")
        assert not life.session.knows("old")
        assert life.session.knows("delete")


class TestWhatAStoreIsTold:
    """``evolve`` answers with the changes to the memory, so that a store writes those rows and no others."""

    def evolve(self, life: Life, action: Action, id: str | None, at: int = 0) -> DedupChanges:
        life.position += 1
        command = Command(id, life.position, 0, at * SECOND, action)
        decision = decide(life.session, command, life.default)
        assert isinstance(decision, Accepted)
        return evolve(life.session, command, decision)

    def test_a_create_is_remembered_by_its_checkpoint(self) -> None:
        assert self.evolve(Life(), A, "a") == DedupChanges((), None)

    def test_any_other_command_is_added_after_what_it_dropped(self) -> None:
        life = Life()
        life.does(A, id="a")
        life.does(A, id="b")
        assert self.evolve(life, Clear(), "clear") == DedupChanges(
            (SeenCommand(1, "a", 1), SeenCommand(2, "b", 2), SeenCommand(3, "clear", None)), None
        )

    def test_retention_adds_the_creates_of_what_it_dropped(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=2))
        life.does(A, id="a")
        life.does(A, id="b")
        assert self.evolve(life, A, "c") == DedupChanges((SeenCommand(2, "b", 2),), None)

    def test_a_delete_that_makes_many_leave_by_age_adds_its_own_checkpoint_too(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=400, compress_after=400))
        life.creates(*["old"] * 100)
        life.creates("new", at=1_000)
        life.default = RetentionPolicy(400, 400, max_age=10 * SECOND)
        memory = self.evolve(life, Delete("s:50"), "delete", at=1_000)
        gone = [50, *range(1, 50), *range(51, 101)]
        assert memory.added == (
            *(SeenCommand(number, f"command-{number}", number) for number in gone),
            SeenCommand(102, "delete", 50),
        )
        assert life.numbers == [101]

    def test_an_erasure_keeps_its_own_id_alone(self) -> None:
        life = Life()
        life.does(A, id="a")
        assert self.evolve(life, Erase(), "erase") == DedupChanges((SeenCommand(2, "erase", None),), 2)

    def test_an_expiry_that_forgets_is_recorded_even_if_it_has_no_id_itself(self) -> None:
        life = Life()
        life.does(Clear(), id="clear")
        assert self.evolve(life, Expire(5 * SECOND), None, at=10) == DedupChanges((), 2)
        assert not life.session.knows("clear")

    def test_forgetting_names_the_lowest_position_still_kept(self) -> None:
        life = Life()
        life.does(A, id="a")
        for index in range(FORGET_ABOVE):
            life.does(Pin("s:1"), id=f"pin-{index}")
        memory = self.evolve(life, Pin("s:1"), "last")
        assert memory.added == (SeenCommand(FORGET_ABOVE + 2, "last", 1),)
        assert memory.forgotten_below == life.session.recent[0].position == FORGET_ABOVE + 3 - DEDUP_WINDOW
