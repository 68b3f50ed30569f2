"""Retention on its own: whatever the entries, the policy and the clock, these hold."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.model.retention import (
    RetentionPolicy,
    removed_by_age,
    removed_by_cap,
    removed_by_compression,
    retention,
)

NOW = 1_000


@dataclass(frozen=True)
class Item:
    number: int
    name: str
    recorded_at: int
    pinned: bool


@st.composite
def kept_lists(draw: st.DrawFn, policy: RetentionPolicy) -> list[Item]:
    numbers = sorted(draw(st.sets(st.integers(1, 60), max_size=25)))
    pins = draw(st.sets(st.sampled_from(numbers), max_size=policy.max_pins)) if numbers else set()
    return [
        Item(number, draw(st.sampled_from("abc")), draw(st.integers(900, 1_010)), number in pins)
        for number in numbers
    ]


policies = st.builds(
    RetentionPolicy,
    max_checkpoints=st.integers(2, 20),
    compress_after=st.integers(1, 20),
    keep_recent=st.integers(0, 30),
    max_age=st.one_of(st.none(), st.integers(1, 100)),
)
cases = policies.flatmap(lambda policy: st.tuples(st.just(policy), kept_lists(policy)))
examples = settings(deadline=None, max_examples=200)


def without(entries: list[Item], removed: list[int]) -> list[Item]:
    return [entry for entry in entries if entry.number not in removed]


@examples
@given(cases, st.booleans())
def test_the_cap_holds_the_newest_stays_pins_survive_and_nothing_leaves_twice(
    case: tuple[RetentionPolicy, list[Item]], compress: bool
) -> None:
    policy, entries = case
    removed = retention(entries, policy, NOW, compress=compress)
    left = without(entries, removed)
    assert removed == sorted(set(removed))
    assert len(left) == len(entries) - len(removed) <= policy.max_checkpoints
    assert left[-1:] == entries[-1:]
    assert [entry for entry in left if entry.pinned] == [entry for entry in entries if entry.pinned]


@examples
@given(cases, st.booleans())
def test_applying_it_again_at_the_same_moment_removes_nothing_more(
    case: tuple[RetentionPolicy, list[Item]], compress: bool
) -> None:
    policy, entries = case
    left = without(entries, retention(entries, policy, NOW, compress=compress))
    assert retention(left, policy, NOW, compress=compress) == []


@examples
@given(cases)
def test_compression_loses_no_name_and_keeps_the_first_and_the_recent(
    case: tuple[RetentionPolicy, list[Item]],
) -> None:
    policy, entries = case
    left = without(entries, removed_by_compression(entries, policy))
    assert {entry.name for entry in left} == {entry.name for entry in entries}
    assert left[:1] == entries[:1]
    recent = max(policy.keep_recent, 1)
    assert left[-recent:] == entries[-recent:] if len(left) >= recent else left == entries
    if len(entries) <= max(policy.compress_after, policy.keep_recent):
        assert left == entries


@examples
@given(cases)
def test_the_cap_removes_no_more_than_it_must_and_the_first_only_last(
    case: tuple[RetentionPolicy, list[Item]],
) -> None:
    policy, entries = case
    removed = removed_by_cap(entries, policy)
    assert len(removed) == max(0, len(entries) - policy.max_checkpoints)
    left = without(entries, removed)
    if removed and entries[0].number == removed[0]:
        assert all(entry.pinned for entry in left[:-1])


@examples
@given(cases)
def test_age_removes_exactly_what_is_too_old_unpinned_and_not_the_newest(
    case: tuple[RetentionPolicy, list[Item]],
) -> None:
    policy, entries = case
    removed = removed_by_age(entries, policy, NOW)
    for entry in entries:
        too_old = policy.max_age is not None and NOW - entry.recorded_at > policy.max_age
        stays = entry.pinned or entry == entries[-1]
        assert (entry.number in removed) == (too_old and not stays)
