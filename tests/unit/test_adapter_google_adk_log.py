"""How records of ADK sessions read: which events count, whose predecessor is gone, which shared state follows."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from waypost.adapters import _google_adk_log as log_module
from waypost.adapters._google_adk_log import CREATED, DELETED, EVENT, STATE, Marker, SessionLog, SharedState
from waypost.adapters.records import Row

START = datetime(2026, 11, 30, tzinfo=UTC)


def row(number: int, name: str, data: Any = None, **metadata: Any) -> Row:
    raw = orjson.dumps(data or {})
    return Row(number, name, raw, metadata, START + timedelta(seconds=number))


def made(number: int, tag: str) -> Row:
    return row(number, CREATED, tag=tag)


def event(number: int, tag: str, after: str, born: str = "c") -> Row:
    return row(number, EVENT, tag=tag, after=after, born=born)


def read(*rows: Row) -> tuple[list[str], int | None]:
    log = SessionLog.read(rows)
    return [each.metadata["tag"] for each in log.events], log.orphan.number if log.orphan else None


def test_of_several_events_that_follow_one_the_first_counts() -> None:
    assert read(made(1, "c"), event(2, "a", "c"), event(3, "b", "c"), event(4, "d", "a")) == (
        ["a", "d"],
        None,
    )
    # What follows one that does not count does not count either, and nothing is missing.
    assert read(made(1, "c"), event(2, "a", "c"), event(3, "b", "c"), event(4, "d", "b")) == (["a"], None)


def test_every_reader_agrees_whichever_losers_were_deleted() -> None:
    rows = [made(1, "c"), event(2, "a", "c"), event(3, "x", "c"), event(4, "b", "a"), event(5, "y", "a")]
    losers = [rows[2], rows[4]]
    for count in range(3):
        for gone in itertools.combinations(losers, count):
            assert read(*(each for each in rows if each not in gone)) == (["a", "b"], None)


def test_an_event_whose_predecessor_is_gone_is_reported() -> None:
    assert read(made(1, "c"), event(3, "b", "a")) == ([], 3)
    assert read(event(2, "a", "c")) == ([], 2)
    # Those of a session that was deleted are no loss.
    assert read(row(5, DELETED, tag="d"), event(6, "b", "a")) == ([], None)
    assert read(row(5, DELETED, tag="d"), made(6, "n"), event(7, "b", "a")) == ([], None)


def test_a_session_is_created_once_and_again_after_it_was_deleted() -> None:
    log = SessionLog.read([made(1, "c"), made(2, "other"), event(3, "a", "c")])
    assert (log.born, log.head, log.holds("c"), log.holds("other")) == ("c", "a", True, False)
    log = SessionLog.read([made(1, "c"), event(2, "a", "c"), row(3, DELETED, tag="d"), made(4, "n")])
    assert (log.born, log.head, log.events, log.last) == ("n", "n", [], 4)
    assert Marker.parsed(str(log.marker)) == log.marker == Marker(4, 4, "n", "n")


@pytest.mark.parametrize(
    "text", [None, "", "7", "7/7/a", "x/7/a/b", "7/x/a/b", "7/7/a/b/c", "2026-11-30T00:00:00"]
)
def test_a_marker_of_another_service_does_not_count(text: str | None) -> None:
    assert Marker.parsed(text) is None


def change(number: int, event: str, **values: Any) -> Row:
    return row(number, STATE, {"state": values}, event=event)


def test_the_change_of_an_event_counts_once_and_the_last_writer_wins() -> None:
    rows = [
        change(1, "a", x=1, y=1),
        change(2, "b", x=2),
        change(3, "a", x=1, y=1),
        row(4, STATE, {"state": 7}),
    ]
    assert SharedState.read(rows).values == {"x": 2, "y": 1}


def test_a_summary_stands_for_what_it_covers_and_changes_meanwhile_come_after_it() -> None:
    rows = [change(1, "a", x=1), change(2, "b", x=2), change(3, "c", x=3)]
    before = SharedState.read(rows[:2])
    data = {"state": before.values, "events": before.newest_events()}
    summary = row(4, STATE, data, covers=2)
    expected = {"x": 3}
    for gone in ([], rows[:1], rows[:2]):
        left = [each for each in rows if each not in gone]
        assert SharedState.read([*left, summary]).values == expected
    # Repeated after the summary, the change of an event that it covers does not count.
    assert SharedState.read([rows[2], summary, change(5, "a", x=1)]).values == expected
    # Of two summaries, the one that covers more counts, whichever comes last.
    narrow = row(5, STATE, {"state": {"x": 1}, "events": {"a": 0}}, covers=1)
    assert SharedState.read([rows[2], summary, narrow]).values == expected


def test_a_change_is_surely_missing_only_as_far_as_a_summary_remembers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_module, "_EVENTS", 2)
    found = SharedState.read([change(1, "a", x=1), change(2, "b", x=2), change(3, "c", x=3)])
    assert found.lacks(event(1, "unknown", "c"))
    assert not found.lacks(event(1, "a", "c"))
    summary = row(4, STATE, {"state": found.values, "events": found.newest_events()}, covers=3)
    kept = SharedState.read([summary])
    assert list(kept.events) == ["b", "c"]
    assert not kept.lacks(event(1, "a", "c"))  # forgotten, as it may be
    assert kept.lacks(event(3, "late", "c"))
