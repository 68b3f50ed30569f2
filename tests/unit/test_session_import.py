"""Imports, item by item: own ids, foreign ids, conflicts, counters and retention."""

from tests.unit.life import Life, item

from waypost.model.commands import Clear, Create, Delete, Import, Pin
from waypost.model.decisions import Imported
from waypost.model.retention import RetentionPolicy

SECOND = 1_000_000


def outcomes(imported: Imported) -> list[tuple[int, str]]:
    return [(placed.number, placed.outcome) for placed in imported.placed]


class TestOwnIds:
    def test_a_free_number_is_taken(self) -> None:
        life = Life()
        assert outcomes(life.imports(item("s:3", "c"), item("s:1", "a"))) == [
            (3, "imported"),
            (1, "imported"),
        ]
        assert life.names == "a c"

    def test_a_hole_below_the_counter_is_filled(self) -> None:
        life = Life()
        life.creates(*"abc")
        life.does(Delete("s:2"))
        life.imports(item("s:2", "x"))
        assert life.names == "a x c"
        assert life.session.counter == 3

    def test_the_counter_is_at_least_the_highest_number_present(self) -> None:
        life = Life()
        life.imports(item("s:7"))
        assert life.session.counter == 7
        life.creates("a")
        assert life.numbers == [7, 8]

    def test_it_is_not_an_imported_id(self) -> None:
        life = Life()
        life.imports(item("s:7"))
        assert life.session.live()[0].imported_id is None

    def test_only_the_canonical_form_is_own(self) -> None:
        life = Life()
        assert outcomes(life.imports(item("s:07"), item("s:0"), item("s:+1"))) == [
            (1, "imported"),
            (2, "imported"),
            (3, "imported"),
        ]
        assert [entry.imported_id for entry in life.session.live()] == ["s:07", "s:0", "s:+1"]


class TestConflicts:
    def life(self) -> Life:
        life = Life()
        life.creates(*"abc")
        life.pins(2)
        return life

    def test_skip_leaves_what_is_there(self) -> None:
        life = self.life()
        imported = life.imports(item("s:2", "x"), item("s:4", "d"))
        assert outcomes(imported) == [(2, "skipped"), (4, "imported")]
        assert imported.placed[0].entry is None
        assert life.names == "a b* c d"

    def test_replace_takes_name_data_and_timestamp_and_keeps_number_pin_and_command_id(self) -> None:
        life = self.life()
        before = life.session.entries[2]
        life.imports(item("s:2", "x", timestamp=99), on_conflict="replace", at=5)
        after = life.session.entries[2]
        assert (after.name, after.taken_at, after.recorded_at) == ("x", 99, 5 * SECOND)
        assert (after.number, after.pinned, after.command_id, after.position) == (
            2,
            True,
            before.command_id,
            2,
        )
        assert life.names == "a x* c"

    def test_a_replaced_one_keeps_the_id_under_which_it_was_imported(self) -> None:
        life = Life()
        life.imports(item("old:1", "a"))
        life.imports(item("s:1", "b"), on_conflict="replace")
        found = life.session.find("old:1")
        assert found is not None
        assert (found.number, found.name, found.imported_id) == (1, "b", "old:1")

    def test_reject_refuses_the_whole_command(self) -> None:
        life = self.life()
        assert life.refuses(Import((item("s:9"), item("s:2"), item("old:1")), "reject")) == "conflict"

    def test_reject_without_a_conflict_imports(self) -> None:
        assert outcomes(self.life().imports(item("s:4"), item("old:1"), on_conflict="reject")) == [
            (4, "imported"),
            (5, "imported"),
        ]

    def test_an_own_id_twice_in_one_list_conflicts_with_itself(self) -> None:
        twice = (item("s:1", "a"), item("s:1", "b"))
        skipped, replaced = Life(), Life()
        assert outcomes(skipped.imports(*twice)) == [(1, "imported"), (1, "skipped")]
        assert skipped.names == "a"
        assert outcomes(replaced.imports(*twice, on_conflict="replace")) == [(1, "imported"), (1, "replaced")]
        assert replaced.names == "b"
        assert Life().refuses(Import(twice, "reject")) == "conflict"

    def test_a_foreign_id_never_conflicts(self) -> None:
        life = Life()
        life.imports(item("old:1", "a"))
        assert outcomes(life.imports(item("old:1", "b"), on_conflict="reject")) == [(2, "imported")]

    def test_an_item_may_take_the_number_that_a_foreign_one_just_got(self) -> None:
        life = Life()
        imported = life.imports(item("old:1", "a"), item("s:1", "b"))
        assert outcomes(imported) == [(1, "imported"), (1, "skipped")]


class TestForeignIds:
    def test_they_take_the_next_numbers_in_the_order_of_the_list(self) -> None:
        life = Life()
        life.creates("a")
        assert outcomes(life.imports(item("old:9", "x"), item("old:2", "y"))) == [
            (2, "imported"),
            (3, "imported"),
        ]
        assert life.names == "a x y"

    def test_the_next_number_is_above_all_given_and_all_claimed_before_it_in_the_list(self) -> None:
        life = Life()
        life.creates(*"ab")
        life.does(Clear())
        assert outcomes(life.imports(item("s:9"), item("old:1"), item("s:1"))) == [
            (9, "imported"),
            (10, "imported"),
            (1, "imported"),
        ]

    def test_they_are_found_under_their_original_id_the_newest_first(self) -> None:
        life = Life()
        life.imports(item("old:1"), item("old:1"))
        assert life.session.find("old:1") == life.session.entries[2]
        life.does(Delete("old:1"))
        assert life.session.find("old:1") == life.session.entries[1]
        life.pins(1)
        life.does(Delete("old:1"))
        assert life.session.find("old:1") is None
        assert life.refuses(Pin("old:1")) == "unknown-checkpoint"

    def test_after_clear_the_original_ids_are_forgotten(self) -> None:
        life = Life()
        life.imports(item("old:1"))
        life.does(Clear())
        assert life.session.find("old:1") is None


class TestRetentionOfImports:
    def test_the_cap_applies_and_may_take_items_of_this_very_import(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=3))
        life.creates("a")
        imported = life.imports(*[item(f"old:{n}", n) for n in "bcde"])
        assert imported.removed == (2, 3)
        assert life.names == "a d e"

    def test_compression_does_not_so_that_an_export_comes_back_whole(self) -> None:
        life = Life(RetentionPolicy(compress_after=2, keep_recent=1))
        life.imports(*[item(f"s:{n}", "a") for n in range(1, 7)])
        assert life.numbers == [1, 2, 3, 4, 5, 6]

    def test_age_applies_to_what_was_there_and_not_to_what_comes(self) -> None:
        life = Life(RetentionPolicy(max_age=10 * SECOND))
        life.creates("a", at=0)
        imported = life.imports(item("old:1", "b", timestamp=0), at=11)
        assert imported.removed == (1,)
        assert life.session.live()[0].recorded_at == 11 * SECOND

    def test_pins_survive(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=3))
        life.creates("a", "b")
        life.pins(2)
        life.imports(item("old:1", "c"), item("old:2", "d"))
        assert life.names == "a b* d"


def test_imports_are_counted_by_outcome() -> None:
    life = Life()
    life.creates("a", "b")
    imported = life.imports(item("s:1"), item("s:2"), item("s:3"), on_conflict="replace")
    assert [imported.count(outcome) for outcome in ("imported", "replaced", "skipped")] == [1, 2, 0]


def test_an_empty_import_is_accepted() -> None:
    life = Life()
    life.creates("a")
    assert outcomes(life.imports()) == []


def test_imported_checkpoints_carry_no_command_id_so_a_repeated_import_is_known_by_its_own() -> None:
    life = Life()
    life.does(Import((item("old:1"),)), id="import")
    assert [entry.command_id for entry in life.session.live()] == [None]
    life.does(Import((item("old:1"),)), id="import")
    life.does(Create("a", b"{}"))
    assert life.numbers == [1, 2]
