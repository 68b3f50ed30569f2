"""What commands print: tables that fit, JSON that parses, and nothing that steers a terminal."""

import json
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from waypost_worker.cli.support.output import (
    Stream,
    event_line,
    note,
    printable,
    show_fields,
    show_json,
    show_json_line,
    show_rows,
    show_wide_tables,
    write,
)
from waypost_worker.kafka.topics import Finding

ROWS: list[dict[str, Any]] = [
    {"name": "a", "count": 1, "at": datetime(2026, 11, 24, 8, 0, 1, 5000, tzinfo=UTC), "extra": None},
    {"name": "b" * 200, "count": 22, "at": None, "extra": {"x": [1]}},
]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_rows_as_json_are_one_list_with_all_fields(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, "json", ("name",))
    found = json.loads(capsys.readouterr().out)
    assert found[0] == {"name": "a", "count": 1, "at": "2026-11-24T08:00:01.005000Z", "extra": None}
    assert len(found) == 2


def test_rows_as_jsonl_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, "jsonl", ("name",))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["count"] for line in lines] == [1, 22]


def test_no_rows_are_an_empty_list_for_programs_and_a_word_for_people(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_rows([], "json", ("name",), "no sessions")
    assert capsys.readouterr() == ("[]\n", "")
    show_rows([], "jsonl", ("name",), "no sessions")
    assert capsys.readouterr() == ("", "")
    show_rows([], "table", ("name",), "no sessions")
    assert capsys.readouterr() == ("", "no sessions\n")


def test_a_table_shows_the_columns_within_the_terminal_and_loses_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_rows(ROWS, "table", ("name", "count", "at"), wrap=("name",))
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["name", "count", "at"]
    assert max(len(line) for line in out.splitlines()) <= 80
    assert out.count("b") == 200
    assert "2026-11-24T08:00:01Z" in out


IDS: list[dict[str, Any]] = [
    {"session_id": "s" * 120, "code": "c" * 20, "message": "what is wrong " * 20, "at": None}
]


@pytest.mark.parametrize("wrap", [(), ("message",)], ids=["all", "one column"])
def test_an_id_stays_on_one_line_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], wrap: tuple[str, ...]
) -> None:
    show_rows(IDS, "table", ("session_id", "code", "message", "at"), wrap=wrap)
    out = capsys.readouterr().out
    assert "s" * 120 in out
    assert "".join(out.split()).count("wrong") >= 20
    assert len(out.splitlines()) > 3, "the message gives way"


def test_wide_tables_have_one_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_wide_tables(True)
    try:
        show_rows(IDS, "table", ("session_id", "code", "message", "at"))
    finally:
        show_wide_tables(False)
    heading, _, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["session", "id", "code", "message", "at"]
    assert ("what is wrong " * 20).strip() in row


def test_one_thing_is_an_object_or_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    show_fields({"data": {"x": 1}, "pinned": True, "removed": ["s:1", "s:2"], "none": None}, "json")
    assert json.loads(capsys.readouterr().out)["removed"] == ["s:1", "s:2"]
    show_fields({"data": {"x": 1}, "pinned": True, "removed": ["s:1", "s:2"], "none": None}, "table")
    assert capsys.readouterr().out.splitlines() == [
        'data     {"x":1}',
        "pinned   yes",
        "removed  s:1, s:2",
        "none     -",
    ]


HOSTILE = {
    "a color": "\x1b[31mred",
    "a C1 control": "a\x9bb",
    "every C1 control": "".join(map(chr, range(0x7F, 0xA0))),
    "bell": "bell\a",
    "backspace": "back\b\b",
    "right to left": "\u202eright to left",
    "isolates and marks": "\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
    "line and paragraph separators": "a\u2028b\u2029c",
    "zero width": "a\u200bb\u2060c\ufeffd\u00ade",
    "tags": "a\U000e0041\U000e007fb",
    "variation selectors": "a\ufe00\U000e0100b",
    "fillers": "a\u3164b\uffa0c\u115fd\u2800e\u034ff",
    "an unassigned character": "a\U000e0fffb",
}
PLAIN = "Grüße, 你好, नमस्ते, 👍🏽 ❤\ufe0f e\u0301 שלום"


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a terminal of 80 columns."""
    monkeypatch.setattr("os.get_terminal_size", lambda _=1: os.terminal_size((80, 24)))

    def isatty(_: object) -> bool:
        return True

    monkeypatch.setattr(type(sys.stdout), "isatty", isatty)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_was_sent_steers_the_terminal(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert printable(text).isprintable()
    show_fields({"value": text, "data": {"x": text}, "list": [text]}, "table")
    show_rows([{"value": text}], "table", ("value",))
    out = capsys.readouterr().out.replace("\n", "")
    assert out.replace("─", "").isprintable()
    assert text not in out
    assert event_line(None, "created", text + "\n", "\n" + text).isprintable()
    note(f"said: {text}")
    write(f"\x1b[32mgreen\x1b[0m {text}\n")
    out, err = capsys.readouterr()
    assert err.removesuffix("\n").isprintable()
    assert re.sub(r"\x1b\[\d+m", "", out).removesuffix("\n").isprintable()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.usefixtures("terminal")
def test_json_on_a_terminal_steers_nothing_and_means_the_same(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    value = {text: [text], "plain": PLAIN}
    show_json(value)
    show_json_line(value)
    with Stream("json") as stream:
        stream.show(value, "")
    indented, line, streamed = re.fullmatch(
        r"(.*\n\})\n(.*)\n(\[\n.*\n\])\n", capsys.readouterr().out, re.S
    ).groups()  # type: ignore[union-attr]
    for said in (indented, line, streamed):
        assert all(part.isprintable() for part in said.split("\n"))
        assert PLAIN in said
        assert text not in said
    assert json.loads(indented) == json.loads(line) == value
    assert json.loads(streamed) == [value]


def test_json_that_is_piped_is_exact(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    raw = orjson.dumps(["".join(HOSTILE.values())])
    write(raw)
    assert capfdbinary.readouterr().out == raw


def test_what_people_write_is_not_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(PLAIN) == PLAIN
    assert printable("half a character \ud83d") == "half a character \\ud83d"
    show_fields({"value": PLAIN}, "table")
    assert PLAIN in capsys.readouterr().out


@pytest.mark.usefixtures("terminal")
def test_a_name_of_a_field_is_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show_fields({"[red]x[/red]\x9b": 1}, "table")
    assert "[red]x[/red]\\x9b" in capsys.readouterr().out


def test_a_stream_as_json_is_one_list_whatever_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with Stream("json") as stream:
            stream.show({"n": 1}, "one")
            stream.show({"n": 2}, "two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(capsys.readouterr().out) == [{"n": 1}, {"n": 2}]
    with Stream("json"):
        pass
    assert json.loads(capsys.readouterr().out) == []


def test_a_stream_shows_each_row_immediately(capsys: pytest.CaptureFixture[str]) -> None:
    with Stream("jsonl") as stream:
        stream.show({"n": 1}, "one")
        assert json.loads(capsys.readouterr().out) == {"n": 1}
    with Stream("table") as stream:
        stream.show({"n": 1}, "one")
        assert capsys.readouterr().out == "one\n"


def test_findings_suggest_fixes_and_errors_are_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    from waypost_worker.cli.support.findings import show_findings

    well = Finding("ok", "topic", "3 partitions")
    doubtful = Finding("warning", "topic", "retention.ms=1", "set retention.ms=-1")
    wrong = Finding("error", "topic", "cleanup.policy=compact", "set cleanup.policy=delete")
    assert show_findings([well, doubtful], "table") == 0
    out, err = capsys.readouterr()
    assert "-> set retention.ms=-1" in out
    assert err == "2 checks: 1 warning\n"
    assert show_findings([well, doubtful, wrong], "json") == 1
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert [row["level"] for row in rows] == ["ok", "warning", "error"]
    assert [row["fix"] for row in rows] == ["", "set retention.ms=-1", "set cleanup.policy=delete"]
    assert [row["mend"] for row in rows] == [row["fix"] for row in rows]  # deprecated
    assert err == ""
    assert show_findings([well], "table") == 0
    assert capsys.readouterr().err == "1 checks: all is well\n"
