"""From arguments and lines to commands; what is wrong with one is said before anything is sent."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from waypost.errors import InvalidCommandError
from waypost.wire.event_types import COMMAND_TYPES, EventType
from waypost_worker.cli.support.command_input import TYPES, from_arguments, from_line
from waypost_worker.cli.support.output import CommandError
from waypost_worker.operations.sending import Prepared


def arguments(
    session: str = "s",
    name: str | None = None,
    data: str | None = None,
    metadata: str | None = None,
    kind: str = "create",
    body: str | None = None,
) -> Prepared:
    return from_arguments(session, name, data, metadata, kind, body)


def test_data_is_kept_to_the_byte() -> None:
    made = arguments(name="n", data=' {"a": 1.10, "b": 1e2} ', metadata='{"k": 1}')
    assert made == Prepared(
        "s", EventType.CREATE, b'{"name":"n","metadata":{"k": 1},"data":{"a": 1.10, "b": 1e2}}'
    )
    line = from_line(b'{"session": "s", "data": {"a": 1.10},   "name": "n"}')
    assert line == Prepared("s", EventType.CREATE, b'{"name":"n","data":{"a": 1.10}}')


def test_data_is_an_empty_object_unless_given() -> None:
    assert arguments(name="n").body == b'{"name":"n","data":{}}'


def test_data_comes_from_a_file_or_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"x": 1}\n')
    assert arguments(name="n", data=f"@{tmp_path / 'data.json'}").body == b'{"name":"n","data":{"x": 1}}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"y": 2}')))
    assert arguments(name="n", data="-").body == b'{"name":"n","data":{"y": 2}}'


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_types_have_short_and_long_names(kind: str) -> None:
    bodies = {
        "create": '{"name":"n","data":{}}',
        "pin": '{"checkpoint_id":"s:1"}',
        "unpin": '{"checkpoint_id":"s:1"}',
        "delete": '{"checkpoint_id":"s:1"}',
        "clear": "{}",
        "rollback": '{"checkpoint_id":"s:1"}',
        "import": '{"checkpoints":[]}',
        "configure": '{"max_checkpoints":5}',
        "erase": "{}",
        "expire": '{"idle_since":"2026-11-24T08:24:59Z"}',
    }
    short = arguments(kind=kind, body=bodies[kind])
    assert short == arguments(kind=TYPES[kind], body=bodies[kind])
    assert short.type in COMMAND_TYPES
    assert (
        from_line(b'{"session":"s","type":"%b","body":%b}' % (kind.encode(), bodies[kind].encode())) == short
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs a NAME"),
        ({"name": "n", "data": "nope"}, "--data is not JSON"),
        ({"name": "n", "data": "[1]"}, "--data must be a JSON object"),
        ({"name": "n", "metadata": "1"}, "--metadata must be a JSON object"),
        ({"name": "n", "data": "@/does/not/exist"}, "/does/not/exist can't be read"),
        ({"name": "n", "data": "-", "metadata": "-"}, "only one of"),
        ({"name": "n", "body": "{}"}, "--body is the whole command"),
        ({"name": "n", "kind": "clear"}, "has no NAME"),
        ({"kind": "nonsense"}, "there is no command type 'nonsense'"),
        ({"kind": "defaults.configure"}, "use 'waypost defaults'"),
        ({"kind": EventType.CONFIGURE_DEFAULTS, "body": "{}"}, "use 'waypost defaults'"),
        ({"kind": EventType.CONFIGURE_AUTHORITY, "body": "{}"}, "use 'waypost authority'"),
        ({"kind": EventType.SKIP, "body": "{}"}, "use 'waypost commands skip'"),
    ],
)
def test_wrong_arguments_are_wrong_usage(given: dict[str, Any], said: str) -> None:
    with pytest.raises(CommandError, match=said) as caught:
        arguments(**given)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"session": "", "name": "n"}, "session id is empty"),
        ({"session": "a\x01", "name": "n"}, "control character"),
        ({"name": "n" * 201}, "at most 200"),
        ({"name": "n", "data": '{"a": 99999999999999999999}'}, "64 bits"),
        ({"kind": "pin", "body": "{}"}, "checkpoint_id"),
        ({"kind": "pin", "body": '{"checkpoint_id": "s:1", "x": 1}'}, "unknown field"),
        ({"kind": "configure", "body": '{"max_checkpoints": 1}'}, "max_checkpoints"),
    ],
)
def test_a_command_that_would_be_rejected_is_not_sent(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidCommandError, match=said):
        arguments(**given)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nope", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"name": "n"}', "session is required"),
        (b'{"session": 1, "name": "n"}', "session is required"),
        (b'{"session": "s", "name": "n", "date": {}}', "unknown field 'date'. Did you mean data?"),
        (b'{"session": "s", "name": "n"}', "data: Field required"),
        (b'{"session": "s", "data": {}}', "name: Field required"),
        (b'{"session": "s", "type": "nonsense", "body": {}}', "no command type"),
        (b'{"session": "s", "name": "n", "data": {"a": NaN}}', "not JSON"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(line: bytes, said: str) -> None:
    with pytest.raises((InvalidCommandError, CommandError), match=said):
        from_line(line)
