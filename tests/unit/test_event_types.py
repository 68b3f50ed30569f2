"""The event types are what they always were, and the code names each of them in one place."""

import ast
import json
from pathlib import Path

import orjson
import pytest

from waypost.wire.event_types import COMMAND_TYPES, RESULT_TYPES, EventType

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "waypost.checkpoint.create",
    "waypost.checkpoint.pin",
    "waypost.checkpoint.unpin",
    "waypost.checkpoint.delete",
    "waypost.session.clear",
    "waypost.session.rollback",
    "waypost.session.import",
    "waypost.session.configure",
    "waypost.session.expire",
    "waypost.session.erase",
    "waypost.defaults.configure",
    "waypost.authority.configure",
    "waypost.partition.skip",
)
RESULTS = (
    "waypost.checkpoint.created",
    "waypost.checkpoint.pinned",
    "waypost.checkpoint.unpinned",
    "waypost.checkpoint.deleted",
    "waypost.session.cleared",
    "waypost.session.rolled_back",
    "waypost.session.imported",
    "waypost.session.configured",
    "waypost.session.expired",
    "waypost.session.erased",
    "waypost.session.kept",
    "waypost.defaults.configured",
    "waypost.authority.configured",
    "waypost.partition.skipped",
    "waypost.command.rejected",
    "waypost.command.duplicate",
    "waypost.partition.acquired",
)


def test_the_strings_never_change() -> None:
    assert COMMAND_TYPES == COMMANDS
    assert RESULT_TYPES == RESULTS
    assert tuple(EventType) == COMMANDS + RESULTS


@pytest.mark.parametrize("kind", EventType, ids=str)
def test_a_type_is_a_string_wherever_one_is_expected(kind: EventType) -> None:
    text = kind.value
    assert type(text) is str
    assert (str(kind), f"{kind}", {text: 1}[kind], {kind: 1}[text]) == (text, text, 1, 1)
    assert json.dumps(kind).encode() == orjson.dumps(kind) == orjson.dumps(text)
    assert kind.wire == text.encode()


def literals(file: Path) -> list[str]:
    """The string and bytes literals of a file that are exactly an event type."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        value = node.value if isinstance(node, ast.Constant) else None
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if text in COMMANDS + RESULTS:
            found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {text}")
    return found


@pytest.mark.parametrize("package", ["schemas", "worker"])
def test_no_other_module_spells_a_type_out(package: str) -> None:
    files = [file for file in (ROOT / package).rglob("*.py") if file.name != "event_types.py"]
    assert len(files) > 50
    assert [found for file in files for found in literals(file)] == []
