"""Retention: what stays, what goes, and in which order it goes. One test per bullet of the semantics."""

import pytest
from tests.unit.life import Life, expect, item

from waypost.errors import InvalidCommandError
from waypost.model.commands import Clear, Configure, Create, Delete, Pin, Rollback, Unpin
from waypost.model.decisions import Created, Deleted, Pinned, Rejected, RolledBack, Unpinned
from waypost.model.index import Entry
from waypost.model.retention import RetentionPolicy, removed_by_cap, removed_by_compression, retention

SECOND = 1_000_000


def test_the_defaults() -> None:
    policy = RetentionPolicy()
    assert (policy.max_checkpoints, policy.compress_after, policy.keep_recent, policy.max_age) == (
        100,
        50,
        20,
        None,
    )


class TestCompression:
    def test_nothing_goes_up_to_compress_after(self) -> None:
        life = Life()
        life.creates(*["a"] * 50)
        assert len(life.numbers) == 50

    def test_beyond_it_stay_the_first_the_recent_and_the_latest_of_each_name_between(self) -> None:
        life = Life(RetentionPolicy(compress_after=9, keep_recent=3))
        life.creates(*"abcabcabc")
        created = expect(Created, life.does(Create("a", b"{}")))
        # first: 1; recent: 8, 9, 10; between: 2..7 with latest b=5, c=6, a=7
        assert life.numbers == [1, 5, 6, 7, 8, 9, 10]
        assert created.removed == (2, 3, 4)

    def test_the_default_policy_at_its_first_compression(self) -> None:
        life = Life()
        life.creates(*["a"] * 51)
        assert life.numbers == [1, 31, *range(32, 52)]

    def test_the_pinned_stay_and_count_as_the_latest_of_their_name(self) -> None:
        life = Life(RetentionPolicy(compress_after=6, keep_recent=1))
        life.creates(*"aabbcc")
        life.pins(3, 4)
        life.creates("x")
        assert life.numbers == [1, 2, 3, 4, 6, 7]

    def test_an_older_pin_does_not_shield_or_spend_the_latest_of_its_name(self) -> None:
        life = Life(RetentionPolicy(compress_after=4, keep_recent=1))
        life.creates(*"aabb")
        life.pins(2)
        life.creates("x")
        assert life.names == "a a* b x"

    def test_the_first_is_the_lowest_live_number_not_number_one(self) -> None:
        life = Life(RetentionPolicy(compress_after=3, keep_recent=1))
        life.creates(*"aaa")
        life.does(Delete("s:1"))
        life.creates("a", "a")
        assert life.numbers == [2, 4, 5]

    @pytest.mark.parametrize("keep_recent", [5, 6, 10_000])
    def test_keep_recent_at_or_above_the_length_removes_nothing_and_doubles_nothing(
        self, keep_recent: int
    ) -> None:
        life = Life(RetentionPolicy(compress_after=2, keep_recent=keep_recent))
        life.creates(*"aaaaa")
        assert life.numbers == [1, 2, 3, 4, 5]

    def test_keep_recent_zero_still_keeps_the_newest(self) -> None:
        life = Life(RetentionPolicy(compress_after=3, keep_recent=0))
        life.creates(*"aaaa")
        assert life.numbers == [1, 3, 4]

    def test_compress_after_one(self) -> None:
        life = Life(RetentionPolicy(compress_after=1, keep_recent=1))
        life.creates(*"aaaaa")
        assert life.numbers == [1, 4, 5]

    def test_only_creates_and_policy_changes_compress(self) -> None:
        life = Life(RetentionPolicy(compress_after=3, keep_recent=1))
        life.imports(*[item(f"old:{n}", "a") for n in range(6)])
        life.does(Pin("s:1"))
        life.does(Unpin("s:1"))
        life.does(Rollback("s:2"))
        assert life.numbers == [1, 2, 3, 4, 5, 6]
        assert life.configures().removed == (2, 3, 4)
        assert life.numbers == [1, 5, 6]


class TestCap:
    def test_the_lowest_goes_that_is_not_pinned_not_the_first_and_not_the_newest(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=4))
        life.creates(*"abcd")
        life.pins(2)
        assert expect(Created, life.does(Create("e", b"{}"))).removed == (3,)
        assert life.names == "a b* d e"

    def test_a_pinned_first_stays_and_the_next_one_goes(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=3))
        life.creates(*"abc")
        life.pins(1)
        life.creates("d", "e")
        assert life.names == "a* d e"

    def test_if_only_pins_and_the_newest_are_left_the_first_goes_too(self) -> None:
        # The pin limit leaves room for the first, so this takes a default that was lowered later.
        life = Life(RetentionPolicy(max_checkpoints=5))
        life.creates(*"abcde")
        life.pins(2, 3)
        life.default = RetentionPolicy(max_checkpoints=3)
        assert expect(Created, life.does(Create("f", b"{}"))).removed == (1, 4, 5)
        assert life.names == "b* c* f"

    def test_pins_survive_a_lowered_default_that_has_no_room_for_them(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=5))
        life.creates(*"abcde")
        life.pins(1, 2, 3)
        life.default = RetentionPolicy(max_checkpoints=2)
        life.creates("f", "g")
        assert life.names == "a* b* c* g"
        assert life.refuses(Pin("s:7")) == "pin-limit"

    def test_two_is_the_smallest_cap_first_and_newest(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=2))
        life.creates(*"abcd")
        assert life.numbers == [1, 4]

    def test_ten_thousand_is_the_largest(self) -> None:
        assert RetentionPolicy(max_checkpoints=10_000).max_checkpoints == 10_000
        for wrong in (1, 0, -1, 10_001):
            with pytest.raises(InvalidCommandError, match="max_checkpoints"):
                RetentionPolicy(max_checkpoints=wrong)

    def test_it_counts_after_compression(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=4, compress_after=4, keep_recent=2))
        life.creates(*"abab")
        assert expect(Created, life.does(Create("c", b"{}"))).removed == (2,)
        assert life.numbers == [1, 3, 4, 5]


class TestAge:
    """``max_age`` compares what the broker's clock said, and applies after the effect of each command."""

    def life(self) -> Life:
        life = Life(RetentionPolicy(max_age=10 * SECOND))
        life.creates("a", at=0)
        life.creates("b", at=1)
        life.creates("c", at=8)
        return life

    def test_what_is_older_than_the_commands_recorded_at_minus_max_age_goes(self) -> None:
        life = self.life()
        assert expect(Created, life.does(Create("d", b"{}"), at=10)).removed == ()
        assert expect(Created, life.does(Create("e", b"{}"), at=10.000001)).removed == (1,)
        assert expect(Created, life.does(Create("f", b"{}"), at=18)).removed == (2,)

    def test_the_agents_clock_plays_no_part(self) -> None:
        life = self.life()
        life.imports(item("old:1", timestamp=-(10**15)), at=9)
        assert life.numbers == [1, 2, 3, 4]

    def test_the_pinned_and_the_newest_stay_however_old(self) -> None:
        life = self.life()
        life.pins(1)
        assert expect(Deleted, life.does(Delete("s:2"), at=1_000)).removed == ()
        assert life.names == "a* c"

    def test_every_accepted_command_applies_it(self) -> None:
        assert expect(Pinned, self.life().does(Pin("s:3"), at=12)).removed == (1, 2)
        assert expect(Unpinned, self.life().does(Unpin("s:3"), at=12)).removed == (1, 2)
        assert expect(Deleted, self.life().does(Delete("s:3"), at=100)).removed == (1,)
        assert expect(RolledBack, self.life().does(Rollback("s:3"), at=12)).removed == (1, 2)
        assert self.life().imports(at=12).removed == (1, 2)
        assert self.life().configures(at=12).removed == (1, 2)

    def test_a_refused_or_repeated_command_does_not(self) -> None:
        life = self.life()
        assert expect(Rejected, life.does(Pin("s:9"), at=100)).code == "unknown-checkpoint"
        life.does(Create("a", b"{}"), at=100, id="command-1")
        assert life.numbers == [1, 2, 3]

    def test_pinning_saves_what_is_too_old_and_unpinning_gives_it_up(self) -> None:
        life = self.life()
        assert expect(Pinned, life.does(Pin("s:1"), at=100)).removed == (2,)
        assert life.names == "a* c"
        assert expect(Unpinned, life.does(Unpin("s:1"), at=100)).removed == (1,)
        assert life.names == "c"

    def test_the_newest_is_the_one_left_after_the_effect(self) -> None:
        life = self.life()
        assert expect(RolledBack, life.does(Rollback("s:1", discard_later=True), at=100)).removed == (2, 3)
        assert life.numbers == [1]

    def test_a_rollback_can_name_a_checkpoint_that_its_own_command_finds_too_old(self) -> None:
        life = self.life()
        rolled_back = expect(RolledBack, life.does(Rollback("s:2"), at=100))
        assert (rolled_back.number, rolled_back.removed) == (2, (1, 2))

    def test_it_goes_before_compression_and_the_cap(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=3, max_age=10 * SECOND))
        life.creates("a", "b", at=0)
        life.creates("c", at=8)
        life.creates("d", at=11)
        # The cap alone would have taken only b; age took a and b, and then three are not too many.
        assert life.names == "c d"

    def test_a_clock_that_goes_backwards_removes_nothing(self) -> None:
        life = self.life()
        life.creates("d", at=-1_000)
        assert life.numbers == [1, 2, 3, 4]

    def test_no_max_age_keeps_forever(self) -> None:
        life = Life()
        life.creates("a", at=0)
        life.creates("b", at=10**9)
        assert life.numbers == [1, 2]

    @pytest.mark.parametrize("wrong", [0, -1])
    def test_it_is_positive(self, wrong: int) -> None:
        with pytest.raises(InvalidCommandError, match=r"^max_age: must be more than 0 seconds") as caught:
            RetentionPolicy(max_age=wrong)
        assert caught.value.code == "invalid-body"

    def test_one_microsecond_is_enough(self) -> None:
        assert RetentionPolicy(max_age=1).max_age == 1


def entries(names: str) -> list[Entry]:
    """Entries from number 1 on, with one-letter names."""
    return [Entry(number, name, 0, 100, number) for number, name in enumerate(names, 1)]


class TestTogether:
    """Age, compression and cap see what the one before left, and all that goes is named once, in order."""

    def test_the_cap_counts_what_compression_left(self) -> None:
        policy = RetentionPolicy(max_checkpoints=4, compress_after=4, keep_recent=2)
        # first: 1; recent: 7, 8; between: latest c=4, a=5, b=6; down to four: 4 and 5 go as well
        assert retention(entries("xabcabyz"), policy, 0, compress=True) == [2, 3, 4, 5]

    def test_compression_and_the_cap_see_what_age_left(self) -> None:
        policy = RetentionPolicy(max_checkpoints=4, compress_after=4, keep_recent=2, max_age=50)
        old, *young = entries("oxabcabyz")
        old.recorded_at = 0
        assert retention([old, *young], policy, 110, compress=True) == [1, 3, 4, 5, 6]

    def test_compression_begins_above_compress_after_even_with_a_max_age(self) -> None:
        assert removed_by_compression(entries("aaaa"), RetentionPolicy(compress_after=4, keep_recent=1)) == []
        assert removed_by_compression(entries("aaaa"), RetentionPolicy(compress_after=3, keep_recent=1)) == [
            2
        ]

    def test_creates_fill_a_session_up_to_its_cap_and_not_less(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=5))
        life.creates(*"abcd")
        assert life.numbers == [1, 2, 3, 4]
        life.creates(*"efg")
        assert life.numbers == [1, 4, 5, 6, 7]

    def test_where_a_new_default_leaves_pins_alone_the_first_goes(self) -> None:
        life = Life()
        life.creates(*"abc")
        life.pins(2, 3)
        life.default = RetentionPolicy(max_checkpoints=3)
        life.creates("d")
        assert life.numbers == [2, 3, 4]

    def test_the_cap_names_the_first_first_where_it_must_go_too(self) -> None:
        kept = entries("abcd")
        kept[1].pinned = True
        assert removed_by_cap(kept, RetentionPolicy(max_checkpoints=2)) == [1, 3]


class TestPinLimit:
    def test_at_most_max_checkpoints_minus_two_are_pinned(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=4))
        life.creates(*"abcd")
        life.pins(1, 4)
        assert life.refuses(Pin("s:2")) == "pin-limit"

    def test_pinning_the_pinned_again_is_not_a_new_pin(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=3))
        life.creates(*"abc")
        life.pins(2, 2)
        assert life.names == "a b* c"

    def test_with_a_cap_of_two_nothing_can_be_pinned(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=2))
        life.creates("a")
        assert life.refuses(Pin("s:1")) == "pin-limit"

    def test_a_cap_below_the_pins_there_are_is_refused(self) -> None:
        life = Life()
        life.creates(*"abcd")
        life.pins(1, 2, 3)
        assert life.refuses(Configure((("max_checkpoints", 4),))) == "pin-limit"
        assert life.configures(max_checkpoints=5).removed == ()

    def test_unpinning_makes_room(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=3))
        life.creates(*"abc")
        life.pins(1)
        life.does(Unpin("s:1"))
        life.pins(2)
        assert life.names == "a b* c"

    def test_clear_and_discard_take_the_pinned_too(self) -> None:
        life = Life(RetentionPolicy(max_checkpoints=3))
        life.creates(*"abc")
        life.pins(3)
        life.does(Rollback("s:1", discard_later=True))
        assert life.names == "a"
        life.pins(1)
        life.does(Clear())
        assert life.numbers == []
