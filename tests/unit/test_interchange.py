"""Checkpoints as lines, and lines as the bodies of import commands."""

from datetime import UTC, datetime

import orjson
import pytest

from waypost.errors import InvalidCommandError
from waypost.model.checkpoint import Checkpoint
from waypost.publisher.calls import IMPORT_PART_BYTES
from waypost_worker.operations.interchange import line_of, parts_of_lines, parts_of_list

TIME = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def checkpoint(identifier: str, data: bytes = b"{}") -> Checkpoint:
    return Checkpoint(identifier, "n", TIME, TIME, data)


def ids(body: bytes) -> list[str]:
    return [item["id"] for item in orjson.loads(body)["checkpoints"]]


def test_a_line_is_one_line_and_keeps_the_bytes_of_data() -> None:
    line = line_of(checkpoint("s:1", b'{"a":\r\n  1.50, "b":"x\\ny", "c": 1e2}'))
    assert b"\n" not in line
    assert b'"data":{"a":    1.50, "b":"x\\ny", "c": 1e2}' in line
    assert orjson.loads(line) == checkpoint("s:1", b'{"a":1.5,"b":"x\\ny","c":100.0}').to_dict()


def test_lines_are_cut_where_the_session_changes_and_where_a_message_is_full() -> None:
    big = b'{"x":"' + b"x" * (IMPORT_PART_BYTES // 2) + b'"}'
    lines = [line_of(checkpoint(name, data)) for name, data in (("a:1", b"{}"), ("a:2", b"{}"), ("b:1", big))]
    lines += [b"", line_of(checkpoint("b:2", big)), line_of(checkpoint("a:3"))]
    parts = list(parts_of_lines(lines, None, "skip"))
    assert [(part.session, ids(part.body)) for part in parts] == [
        ("a", ["a:1", "a:2"]),
        ("b", ["b:1"]),
        ("b", ["b:2"]),
        ("a", ["a:3"]),
    ]
    assert [part.where for part in parts][:2] == ["lines 1 to 2", "lines 3 to 4"]
    assert all(len(part.body) < IMPORT_PART_BYTES + 1000 for part in parts)


def test_lines_for_a_named_session_stay_together() -> None:
    lines = [
        line_of(checkpoint("a:1")),
        b'{"id":"odd","name":"n","timestamp":"2026-11-24T12:00:00Z","data":{}}',
    ]
    (part,) = parts_of_lines(lines, "target", "replace")
    assert (part.session, ids(part.body)) == ("target", ["a:1", "odd"])
    assert orjson.loads(part.body)["on_conflict"] == "replace"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 1 is not JSON"),
        (b'{"id":"odd"}', "line 1 has no id of the form session:number"),
        (b'{"id":"s:07"}', "line 1 has no id of the form session:number"),
        (b"[1]", "line 1 has no id of the form session:number"),
        (b'{"id":"s:1","name":"n","timestamp":"now","data":{}}', "lines 1 to 1: "),
    ],
)
def test_a_line_that_is_not_a_checkpoint_is_named(line: bytes, said: str) -> None:
    with pytest.raises(InvalidCommandError, match=said):
        list(parts_of_lines([line], None, "skip"))


def test_a_list_says_which_of_its_checkpoints_are_in_a_part() -> None:
    big = b'{"x":"' + b"x" * (IMPORT_PART_BYTES // 2) + b'"}'
    text = b"[" + b",".join(line_of(checkpoint(f"s:{n}", big)) for n in (1, 2, 3)) + b"]"
    parts = parts_of_list(text, "t", "skip")
    assert [part.where for part in parts] == [f"checkpoints {n} to {n}" for n in (1, 2, 3)]
