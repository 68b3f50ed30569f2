"""Names of sessions that have several parts, records known by their tag, and turns."""

import asyncio
import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.commands import create_body

from waypost.adapters.commands import create_command
from waypost.adapters.records import Record, Row, divided, new_tag, prefix_end, session_path, with_own
from waypost.adapters.turns import Turns
from waypost.errors import InvalidCommandError
from waypost.model.limits import MAX_DATA_BYTES, MAX_SESSION_ID, dump_object, text_problem
from waypost.wire.encode import encoded_create


def test_a_name_with_several_parts_is_readable_if_it_can_be() -> None:
    assert session_path("p/", "team a", "run-1") == "p/team a/run-1"
    assert session_path("p/", "a", "") == "p/a/"
    long = session_path("p/", "x" * 99, "run-1")
    assert (long[:9], long[-6:], len(long)) == ("p/sha256:", "/run-1", 55)


@pytest.mark.parametrize("metadata", [{}, {"b": 1, "a": "x"}])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_the_data_of_a_record_is_encoded_once(size: int, metadata: dict[str, Any]) -> None:
    record = Record("n", {"text": "x" * size}, metadata)
    expected = dump_object(record.data, "data")
    sent = divided(record)
    record.data["text"] = "encoded again"
    assert sent.whole == ("n", expected, metadata)
    for each in (sent.main, *sent.parts):
        assert create_command(each, None).body == create_body(each.name, each.data, each.metadata)
    chunks = [base64.b64decode(part.data["base64"]) for part in sent.parts]
    assert (b"".join(chunks) if chunks else sent.main.raw) == expected


@pytest.mark.parametrize(
    ("name", "data", "metadata"),
    [
        ("", {}, {}),
        ("n", {"a": "x" * MAX_DATA_BYTES}, {}),
        ("n", {}, {"a": object()}),
        ("n", {}, {"a": "\0"}),
    ],
)
def test_a_record_is_refused_in_the_same_words_as_a_create(name: str, data: Any, metadata: Any) -> None:
    with pytest.raises(InvalidCommandError) as expected:
        create_body(name, data, metadata)
    with pytest.raises(InvalidCommandError) as found:
        encoded_create(name, dump_object(data, "data"), metadata)
    assert (found.value.code, found.value.message) == (expected.value.code, expected.value.message)


NAMES = st.lists(
    st.one_of(st.text(st.sampled_from("a/\0\ud83d"), max_size=3), st.just("x" * 150), st.just("sha256:")),
    min_size=2,
    max_size=2,
)


@given(NAMES, NAMES)
def test_different_names_are_different_sessions_and_lie_below_that_of_their_first_part(
    one: list[str], other: list[str]
) -> None:
    session = session_path("p/", *one)
    assert text_problem(session, MAX_SESSION_ID) is None
    assert (session == session_path("p/", *other)) == (one == other)
    below = session_path("p/", one[0], "")
    assert below <= session < prefix_end(below)
    if other[0] != one[0]:
        assert not below <= session_path("p/", *other) < prefix_end(below)


def row(number: int, tag: object) -> Row:
    return Row(number, "n", b"{}", {"tag": tag}, datetime(2026, 11, 30, tzinfo=UTC))


def test_an_own_record_that_is_stored_already_comes_once_and_where_it_is_stored() -> None:
    tags = [new_tag() for _ in range(3)]
    stored = [row(1, tags[0]), row(2, 7), row(3, "of another")]
    own = [row(10, tags[0]), row(11, tags[1])]
    assert [each.number for each in with_own(stored, own)] == [1, 2, 3, 11]
    assert len(set(tags)) == 3


async def test_calls_for_one_session_take_turns_and_leave_nothing() -> None:
    turns, order = Turns(), []

    async def call(session: str, name: str) -> None:
        async with turns.of(session):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            order.append(f"{name} out")

    await asyncio.gather(call("s", "a"), call("s", "b"), call("t", "c"))
    assert order == ["a in", "c in", "a out", "c out", "b in", "b out"]
    assert len(turns._locks) == 0
