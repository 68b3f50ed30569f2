"""What each command does to a session, row by row of the semantics' table of commands."""

import pytest
from tests.unit.life import Life, expect, item

from waypost.model.checkpoint import own_number
from waypost.model.commands import Clear, Command, Configure, Create, Delete, Pin, Rollback, Unpin
from waypost.model.decisions import Cleared, Created, Deleted, Pinned, RolledBack, Unpinned
from waypost.model.index import Entry, Session
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide, evolve


class TestCreate:
    def test_numbers_run_from_one(self) -> None:
        life = Life()
        life.creates("a", "b", "a")
        assert life.numbers == [1, 2, 3]
        assert life.names == "a b a"

    def test_the_entry_holds_both_clocks_the_position_and_the_command_id(self) -> None:
        session = Session("s")
        command = Command("id", position=9, taken_at=11, recorded_at=12, action=Create("a", b"{}"))
        created = expect(Created, decide(session, command, RetentionPolicy()))
        assert created == Created(Entry(1, "a", 11, 12, 9, "id"), ())
        evolve(session, command, created)
        assert session.live() == [created.entry]

    def test_timestamps_that_tie_or_go_backwards_change_no_order(self) -> None:
        session = Session("s")
        for number, taken_at in enumerate([5, 5, -3, 0], start=1):
            command = Command(None, number, taken_at, taken_at, Create("a", b"{}"))
            evolve(session, command, expect(Created, decide(session, command, RetentionPolicy())))
        assert [entry.taken_at for entry in session.live()] == [5, 5, -3, 0]

    def test_the_entry_of_the_decision_is_the_sessions_own(self) -> None:
        # A store that writes a batch at its end relies on it: a pin of the same batch is then in the row.
        life = Life()
        created = expect(Created, life.does(Create("a", b"{}")))
        life.pins(1)
        assert created.entry.pinned


class TestClear:
    def test_drops_all_the_pinned_too(self) -> None:
        life = Life()
        life.creates(*"abc")
        life.pins(2)
        assert expect(Cleared, life.does(Clear())).removed == (1, 2, 3)
        assert life.numbers == []

    def test_the_counter_continues(self) -> None:
        life = Life()
        life.creates(*"abc")
        life.does(Clear())
        life.creates("d")
        assert life.numbers == [4]

    def test_an_empty_session_can_be_cleared(self) -> None:
        assert expect(Cleared, Life().does(Clear())).removed == ()

    def test_the_policy_stays(self) -> None:
        life = Life()
        life.configures(max_checkpoints=7)
        life.does(Clear())
        assert life.session.policy == RetentionPolicy(max_checkpoints=7)


class TestRollback:
    def test_alone_it_only_records(self) -> None:
        life = Life()
        life.creates(*"abc")
        assert expect(RolledBack, life.does(Rollback("s:2"))) == RolledBack(2, ())
        assert life.numbers == [1, 2, 3]

    def test_with_discard_later_every_higher_number_goes_pinned_ones_too(self) -> None:
        life = Life()
        life.creates(*"abcd")
        life.pins(4)
        assert expect(RolledBack, life.does(Rollback("s:2", discard_later=True))).removed == (3, 4)
        assert life.names == "a b"

    def test_discarded_numbers_are_never_reused(self) -> None:
        life = Life()
        life.creates(*"abcd")
        life.does(Rollback("s:2", discard_later=True))
        life.creates("e")
        assert life.numbers == [1, 2, 5]

    def test_to_the_newest_there_is_nothing_to_discard(self) -> None:
        life = Life()
        life.creates(*"ab")
        assert expect(RolledBack, life.does(Rollback("s:2", discard_later=True))).removed == ()


class TestPinUnpinDelete:
    def test_pin_and_unpin(self) -> None:
        life = Life()
        life.creates(*"ab")
        assert expect(Pinned, life.does(Pin("s:1"))).number == 1
        assert life.names == "a* b"
        assert expect(Unpinned, life.does(Unpin("s:1"))).number == 1
        assert life.names == "a b"

    def test_both_may_be_repeated(self) -> None:
        life = Life()
        life.creates("a")
        for action in (Unpin("s:1"), Pin("s:1"), Pin("s:1"), Unpin("s:1"), Unpin("s:1")):
            expect(Pinned | Unpinned, life.does(action))  # type: ignore[arg-type]
        assert life.names == "a"

    def test_delete_drops_one_pinned_or_not_and_its_number_is_never_reused(self) -> None:
        life = Life()
        life.creates(*"abc")
        life.pins(3)
        assert expect(Deleted, life.does(Delete("s:3"))) == Deleted(3, ())
        life.creates("d")
        assert life.numbers == [1, 2, 4]


class TestUnknownCheckpoints:
    other_sessions = ("other:1", "S:1", "s:s:1", "s", "1", "")
    absent = ("s:9", "s:2", f"s:{10**30}")
    not_canonical = ("s:", "s:0", "s:01", "s:+1", "s:-1", "s: 1", "s:1 ", "s:1.0", "s:\N{SUPERSCRIPT ONE}")

    @pytest.mark.parametrize("make", [Pin, Unpin, Delete, Rollback])
    @pytest.mark.parametrize("identifier", other_sessions + absent + not_canonical)
    def test_an_id_that_the_session_does_not_hold_is_refused(self, make: type[Pin], identifier: str) -> None:
        life = Life()
        life.creates("a", "b")
        life.does(Delete("s:2"))
        assert life.refuses(make(identifier)) == "unknown-checkpoint"

    def test_numbers_that_retention_removed_are_not_reused_either(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=2))
        life.creates(*"abc")
        assert life.refuses(Pin("s:2")) == "unknown-checkpoint"

    def test_a_session_id_may_hold_colons(self) -> None:
        assert own_number("a:b", "a:b:3") == 3
        assert own_number("a", "a:b:3") is None
        assert own_number("a:3", "a:3") is None


class TestConfigure:
    def test_changes_the_named_fields_and_applies_them_immediately(self) -> None:
        life = Life()
        life.creates(*"abcde")
        configured = life.configures(max_checkpoints=3)
        assert configured.policy == RetentionPolicy(max_checkpoints=3)
        assert configured.removed == (2, 3)
        assert life.configures(keep_recent=7, max_age=5).policy == RetentionPolicy(3, 50, 7, 5)

    def test_null_for_max_age_differs_from_not_naming_it(self) -> None:
        life = Life()
        life.configures(max_age=5)
        assert life.configures(keep_recent=1).policy.max_age == 5
        assert life.configures(max_age=None).policy.max_age is None

    def test_without_fields_it_makes_the_present_policy_the_sessions_own(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=4))
        assert life.session.policy is None
        assert life.configures().policy == RetentionPolicy(max_checkpoints=4)
        life.default = RetentionPolicy(max_checkpoints=2)
        life.creates(*"abcd")
        assert life.numbers == [1, 2, 3, 4]

    def test_a_session_without_a_policy_of_its_own_follows_the_default(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=4))
        life.creates(*"abcd")
        life.default = RetentionPolicy(max_checkpoints=2)
        assert life.numbers == [1, 2, 3, 4]  # nothing happens before its next command
        life.creates("e")
        assert life.numbers == [1, 5]

    @pytest.mark.parametrize(("cap", "left"), [(4, [1, 3, 4, 5]), (3, [1, 4, 5]), (2, [1, 5])])
    def test_a_create_removes_as_many_as_a_lower_default_asks_for(self, cap: int, left: list[int]) -> None:
        life = Life(RetentionPolicy(max_checkpoints=4))
        life.creates(*"abcd")
        life.default = RetentionPolicy(max_checkpoints=cap)
        life.creates("e")
        assert life.numbers == left

    def test_naming_one_field_fixes_the_others_as_they_are(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=4))
        life.configures(keep_recent=3)
        life.default = RetentionPolicy(max_checkpoints=50)
        assert life.configures().policy == RetentionPolicy(max_checkpoints=4, keep_recent=3)

    def test_a_field_out_of_bounds_is_refused(self) -> None:
        life = Life()
        assert life.refuses(Configure((("max_checkpoints", 1),))) == "invalid-body"
        assert life.refuses(Configure((("keep_recent", -1),))) == "invalid-body"


def test_a_session_is_empty_before_its_first_command() -> None:
    session = Session("s")
    assert (len(session), session.counter, session.live(), session.policy) == (0, 0, [], None)
    assert session.find("s:1") is None


def test_a_session_is_restored_from_rows_in_any_order() -> None:
    life = Life()
    life.creates(*"abc")
    life.imports(item("old:1", "d"), item("old:1", "e"))
    life.pins(2)
    life.does(Delete("s:1"))
    session = life.session
    restored = Session.restore("s", 5, None, session.live()[::-1], session.recent[::-1])
    assert restored.live() == session.live()
    assert restored.recent == session.recent
    assert (restored.counter, restored.pins(), restored.find("old:1")) == (5, 1, session.entries[5])
    for index in range(1, life.position + 1):
        command_id = f"command-{index}"
        assert restored.knows(command_id)
        assert restored.number_of(command_id) == session.number_of(command_id)


def test_weight_counts_entries_and_remembered_ids() -> None:
    life = Life()
    life.creates(*"abc")
    life.pins(1)
    assert life.session.weight() == 4


class TestHugeNumbers:
    """An import may claim numbers up to 10**15; the ids of what comes after are ids like all others."""

    def test_creates_continue_above_the_largest_claim(self) -> None:
        life = Life()
        life.imports(item(f"s:{10**15}"))
        life.creates("a", "b")
        assert life.numbers == [10**15, 10**15 + 1, 10**15 + 2]
        life.does(Pin(f"s:{10**15 + 1}"))
        expect(Deleted, life.does(Delete(f"s:{10**15 + 2}")))
        assert life.numbers == [10**15, 10**15 + 1]

    @pytest.mark.parametrize("number", [10**15 + 1, 10**17, 2**63 - 1, 2**63, 10**18, 10**40])
    def test_a_larger_claim_is_placed_like_a_foreign_id_and_found_under_it(self, number: int) -> None:
        life = Life()
        placed = life.imports(item(f"s:{number}")).placed
        assert [(one.number, one.outcome) for one in placed] == [(1, "imported")]
        found = life.session.find(f"s:{number}")
        assert found is not None
        assert found.number == 1

    def test_ones_own_numbers_above_it_are_taken_not_foreign(self) -> None:
        life = Life()
        life.imports(item(f"s:{10**15}"))
        life.creates("a")
        again = life.imports(item(f"s:{10**15 + 1}"))
        assert [(one.number, one.outcome) for one in again.placed] == [(10**15 + 1, "skipped")]
