"""Structural differences of JSON values."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost_worker.operations.differences import Change, TextLine, changed_lines, differences, shown

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([0.5, 1.0])
    | st.text("ab/~0", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~0", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("ab/~0", max_size=2), VALUES, max_size=4)


def test_each_place_is_reported_once_with_what_was_there() -> None:
    before = {"step": 1, "plan": ["a", "b"], "gone": True, "same": {"deep": [1]}}
    after = {"step": 2, "plan": ["a", "b", "c"], "new": {"x": 1}, "same": {"deep": [1]}}
    assert differences(before, after) == [
        Change("removed", "/gone", True, None),
        Change("added", "/new", None, {"x": 1}),
        Change("added", "/plan/2", None, "c"),
        Change("changed", "/step", 1, 2),
    ]


def test_objects_that_share_little_are_still_compared_inside() -> None:
    before = {"state": {"a": 1, "b": 2, "c": 3, "kept": {"x": 1}}}
    after = {"state": {"d": 1, "e": 2, "f": 3, "kept": {"x": 2}}}
    assert Change("changed", "/state/kept/x", 1, 2) in differences(before, after)


@pytest.mark.parametrize(("before", "after"), [(1, 1.0), (1, True), (0, False), (0, None), ("1", 1)])
def test_values_that_python_takes_for_equal_differ_where_json_does(before: object, after: object) -> None:
    assert differences({"v": before}, {"v": after}) == [Change("changed", "/v", before, after)]


def test_paths_are_json_pointers() -> None:
    assert [change.path for change in differences({"a/b": {"~": 1}}, {"a/b": {"~": 2}})] == ["/a~1b/~0"]


def test_numbered_places_come_in_their_order() -> None:
    changes = differences({"v": list(range(12))}, {"v": [n + 100 for n in range(12)]})
    assert [change.path for change in changes] == [f"/v/{n}" for n in range(12)]


def test_programs_see_only_the_sides_that_exist() -> None:
    assert shown(Change("added", "/a", None, 1)) == {"change": "added", "path": "/a", "after": 1}
    assert shown(Change("removed", "/a", 1, None)) == {"change": "removed", "path": "/a", "before": 1}


def test_what_was_put_into_a_list_is_one_change_and_so_is_what_was_taken_out() -> None:
    before, after = {"v": ["a", {"n": 1}, "c", "d"]}, {"v": ["new", "a", {"n": 2}, "c"]}
    assert differences(before, after) == [
        Change("added", "/v/0", None, "new"),
        Change("changed", "/v/2/n", 1, 2),
        Change("removed", "/v/3", "d", None),
    ]


def test_long_lists_are_compared_in_time_with_their_length() -> None:
    before, after = list(range(100_000)), [-1, *range(1, 99_999), -2]
    began = time.process_time()
    assert [change.path for change in differences({"v": before}, {"v": after})] == ["/v/0", "/v/99999"]
    # It takes half a second, and two on a busy machine. If each item were compared with each, it would take an hour.
    assert time.process_time() - began < 20


def test_changes_below_a_long_key_take_no_extra_memory() -> None:
    key = "k" * 400_000
    before, after = {key: list(range(50_000))}, {key: [-1 - n for n in range(50_000)]}
    changes = differences(before, after, most=100, longest_path=50)
    assert len(changes) == 100
    assert {change.path for change in changes} == {"/" + "k" * 49 + "…"}


def test_a_key_of_digits_that_no_integer_has_keeps_its_place() -> None:
    assert [change.path for change in differences({}, {"\u00b2": 1, "9" * 5000: 2})] == [
        f"/{'9' * 5000}",
        "/\u00b2",
    ]


@given(OBJECTS)
def test_a_value_does_not_differ_from_itself(value: dict[str, object]) -> None:
    assert differences(value, value) == []


@given(OBJECTS, OBJECTS)
def test_values_differ_if_and_only_if_their_json_does(
    before: dict[str, object], after: dict[str, object]
) -> None:
    import orjson

    dump = lambda value: orjson.dumps(value, option=orjson.OPT_SORT_KEYS)  # noqa: E731
    assert (differences(before, after) == []) == (dump(before) == dump(after))


def lines(before: str, after: str, most: int = 100) -> list[str]:
    return [
        f"{line.sign}{line.text}" for line in changed_lines(Change("changed", "/x", before, after), most=most)
    ]


def test_a_text_is_compared_line_by_line() -> None:
    before = "\n".join(["title", *(f"line {number}" for number in range(20)), "end"])
    after = before.replace("line 9\n", "LINE 9\nline 9 and a half\n").replace("end", "the end")
    assert lines(before, after) == [
        "…8 equal lines",
        " line 7",
        " line 8",
        "-line 9",
        "+LINE 9",
        "+line 9 and a half",
        " line 10",
        " line 11",
        "…6 equal lines",
        " line 18",
        " line 19",
        "-end",
        "+the end",
    ]
    assert lines("a\nb\nc\nd", "A\nb\nc\nd") == ["-a", "+A", " b", " c", "…1 equal line"]
    assert lines("a", "a\n") == [" a", "+"]


def test_only_texts_of_several_lines_have_lines() -> None:
    assert lines("one", "two") == []
    assert changed_lines(Change("added", "/x", None, "a\nb")) == []
    assert changed_lines(Change("changed", "/x", ["a"], "a\nb")) == []


@given(*[st.lists(st.sampled_from(["a", "b", ""]), max_size=12).map("\n".join)] * 2)
def test_texts_are_described_correctly(before: str, after: str) -> None:
    found = changed_lines(Change("changed", "/x", before, after), most=1000)
    for text, other in ((before, "+"), (after, "-")):
        kept = iter(text.split("\n"))
        assert all(line.text in kept for line in found if line.sign not in (other, "…"))
    if found:
        counts = [sum(line.sign == sign for line in found) for sign in "+-"]
        assert counts[0] - counts[1] == after.count("\n") - before.count("\n")


def test_a_text_with_many_lines_is_cut() -> None:
    began = time.monotonic()
    found = changed_lines(Change("changed", "/x", "a\n" * 400_000, "b\n" * 400_000), most=10)
    assert found[10:] == [TextLine("…", "and more lines")]
    assert time.monotonic() - began < 5
