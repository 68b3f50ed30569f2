"""What may leave a thread: whatever is dropped, every checkpoint that stays finds its values and writes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.adapters._langgraph_cleanup import CleanupPlan, carried, older_than_newest
from waypost.adapters._langgraph_cleanup import plan as plan_with_leases
from waypost.adapters._langgraph_layout import (
    CHECKPOINT,
    VALUES,
    WRITES,
    Key,
    values_record,
)
from waypost.adapters.records import PART, Record, Row, divided, session_of, whole

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def plan(rows: list[Row], dropped: set[Key]) -> CleanupPlan:
    """As if no run were under way."""
    return plan_with_leases(rows, dropped, leased=False)


def row(number: int, name: str, metadata: dict[str, Any], age: int = 0) -> Row:
    return Row(number, name, b"", metadata, NOW - timedelta(minutes=age))


@st.composite
def threads(draw: st.DrawFn) -> list[Row]:
    """A thread of some namespaces in which each checkpoint changes some channels, as a saver would store it."""
    rows: list[Row] = []
    versions: dict[str, dict[str, int]] = {}
    parents: dict[str, str] = {}
    count = draw(st.integers(1, 15))
    for step in range(count):
        ns = draw(st.sampled_from(["", "child:1"]))
        here = versions.setdefault(ns, {})
        changed = draw(st.sets(st.sampled_from("abcd"), min_size=1))
        for channel in changed:
            here[channel] = step
        held = [f"{ns}/{channel}/{step}" for channel in sorted(changed)]
        age = draw(st.sampled_from([0, 60])) if step < count - 1 else 0
        if apart := draw(st.booleans()):
            rows.append(row(len(rows) + 1, VALUES, {"holds": held}, age))
        metadata: dict[str, Any] = {
            "ns": ns,
            "id": f"id-{step}",
            "needs": [f"{ns}/{channel}/{version}" for channel, version in here.items()],
            "holds": [] if apart else held,
            "exact": True,
        }
        if ns in parents:
            metadata["parent"] = parents[ns]
        if deltas := draw(st.sets(st.sampled_from("ab"))):
            metadata["deltas"] = sorted(deltas)
        parents[ns] = metadata["id"]
        rows.append(row(len(rows) + 1, CHECKPOINT, metadata, age))
        for _ in range(draw(st.integers(0, 2))):
            rows.append(row(len(rows) + 1, WRITES, {"ns": ns, "id": f"id-{step}"}, age))
    return rows


def keys(rows: list[Row], name: str = CHECKPOINT) -> set[Key]:
    return {(each.metadata["ns"], each.metadata["id"]) for each in rows if each.name == name}


@settings(max_examples=40)
@given(threads(), st.data())
def test_what_stays_has_all_that_it_needs(rows: list[Row], data: st.DataObject) -> None:
    dropped = {key for key in sorted(keys(rows)) if data.draw(st.booleans())}
    planned = plan(rows, dropped)
    left = [each for each in rows if each.number not in planned.gone]
    assert keys(left) == keys(rows) - dropped
    held = {digest for each in left for digest in each.metadata.get("holds", ())} | planned.carry
    assert all(need in held for each in left if each.name == CHECKPOINT for need in each.metadata["needs"])
    assert keys(left, WRITES) == keys(rows, WRITES) - dropped
    assert len(planned.gone) == len(set(planned.gone))


@settings(max_examples=40)
@given(threads(), st.data())
def test_nothing_is_carried_or_kept_in_vain(rows: list[Row], data: st.DataObject) -> None:
    dropped = {key for key in sorted(keys(rows)) if data.draw(st.booleans())}
    planned = plan(rows, dropped)
    left = [each for each in rows if each.number not in planned.gone]
    needed = {need for each in left if each.name == CHECKPOINT for need in each.metadata["needs"]}
    already = {digest for each in left for digest in each.metadata.get("holds", ())}
    assert planned.carry <= needed - already
    assert all(set(each.metadata["holds"]) & needed for each in left if each.name == VALUES)
    carriers = [each for each in rows if each.number in planned.carriers]
    assert planned.carry <= {digest for each in carriers for digest in each.metadata["holds"]}
    if dropped == keys(rows):
        assert left == []


@settings(max_examples=40)
@given(threads(), st.integers(1, 5))
def test_the_newest_of_each_namespace_stay_with_what_their_deltas_go_back_to(
    rows: list[Row], keep: int
) -> None:
    staying = keys(rows) - older_than_newest(rows, keep, at_once=True)
    by_key = {(each.metadata["ns"], each.metadata["id"]): each for each in rows if each.name == CHECKPOINT}
    for ns in {key[0] for key in by_key}:
        newest = [each for each in reversed(rows) if each.name == CHECKPOINT and each.metadata["ns"] == ns][
            :keep
        ]
        for each in newest:
            key, channels = (ns, each.metadata["id"]), set(each.metadata.get("deltas", ()))
            assert key in staying
            while channels and (parent := by_key[key].metadata.get("parent")):
                key = (ns, parent)
                assert key in staying
                channels &= set(by_key[key].metadata.get("deltas", ()))
        if not any(each.metadata.get("deltas") for each in by_key.values()):
            assert {key for key in staying if key[0] == ns} == {(ns, each.metadata["id"]) for each in newest}


def test_what_nobody_refers_to_stays_while_it_may_be_on_its_way() -> None:
    rows = [
        row(1, VALUES, {"holds": ["old"]}, 60),
        row(2, WRITES, {"ns": "", "id": "old"}, 60),
        row(3, PART, {"batch": "old", "part": 0}, 60),
        row(4, VALUES, {"holds": ["new"]}),
        row(5, WRITES, {"ns": "", "id": "new"}),
        row(6, PART, {"batch": "new", "part": 0}),
    ]
    assert plan(rows, set()).gone == [1, 2, 3]


def test_parts_leave_after_their_record() -> None:
    rows = [
        row(1, PART, {"batch": "b", "part": 0}),
        row(2, CHECKPOINT, {"ns": "", "id": "x", "needs": [], "holds": [], "batch": "b", "parts": 1}),
    ]
    assert plan(rows, {("", "x")}).gone == [2, 1]


def test_carried_values_are_those_of_the_records_that_leave() -> None:
    entries = [
        {"digest": name, "type": "null", "base64": "x" * size} for name, size in (("a", 9), ("b", 20_000))
    ]
    record = values_record(entries)
    rows = [Row(1, record.name, b'{"values":[]}', record.metadata, NOW)]
    assert carried(rows, set()) == []
    rows = [Row(1, record.name, orjson.dumps(record.data), record.metadata, NOW)]
    found = carried(rows, {"a", "b"})
    assert [each.metadata["holds"] for each in found] == [["b"], ["a"]]


@settings(max_examples=15)
@given(st.text(max_size=40), st.integers(0, 3_000_000))
def test_a_record_put_together_is_what_was_cut(text: str, size: int) -> None:
    text = text.encode(errors="ignore").decode()
    data = {"text": text, "filling": "x" * size}
    sent = divided(Record("n", data, {"k": 1}))
    parts = [Row(number, part.name, part.raw, part.metadata, NOW) for number, part in enumerate(sent.parts)]
    main = Row(99, sent.main.name, sent.main.raw, sent.main.metadata, NOW)
    (found,) = whole([main], reversed(parts))
    assert found.data == data
    if parts:
        assert whole([main], parts[1:]) == []


@given(st.text(min_size=1), st.text(min_size=1))
def test_session_ids_differ_as_names_do(one: str, other: str) -> None:
    ids = [session_of("langgraph/", name) for name in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)
    assert all(len(each) <= 200 and each.startswith("langgraph/") for each in ids)
