"""Output of commands: tables for people and JSON for programs on stdout, everything else on stderr.

With ``-o json`` a command writes one JSON document, with ``-o jsonl`` one JSON value a line. Knows no command.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from waypost.errors import printable as escaped

if TYPE_CHECKING:
    from rich.text import Text

Format = Literal["table", "json", "jsonl"]
Row = Mapping[str, Any]
DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2

_COLOR: Final = re.compile(r"(\x1b\[[0-9;]*m)")
_JSON: Final = orjson.OPT_UTC_Z  # times end in Z, as they do in the contract
_IDS: Final = frozenset(("id", "session_id", "command_id", "place"))
_GAP: Final = 3  # between columns
_NARROWEST: Final = 12  # what a column that gives way keeps
_wide = False
_LEVELS: Final = {
    "ok": "green",
    "warning": "yellow",
    "error": "red",
    "rejected": "red",
    "duplicate": "yellow",
}


class CommandError(Exception):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


class StdoutClosedError(Exception):
    """The reader of standard output is gone, as behind ``| head``."""


def note(message: str) -> None:
    """Print a note for people on stderr, so that stdout stays clean. Characters that could control a terminal are
    escaped.
    """
    print(printable(message), file=sys.stderr, flush=True)  # noqa: T201


def write(text: str | bytes) -> None:
    """Write to stdout. Raise StdoutClosedError if its reader is gone, and CommandError if it can't be written.

    Of a text only line ends and colors reach a terminal. Bytes, which are JSON, are exact; on a terminal they are the
    same JSON, with escapes for what could steer it.
    """
    if isinstance(text, str):
        raw = _steady(text).encode(errors="backslashreplace")
    else:
        raw = _json_for_terminals(text) if sys.stdout.isatty() else text
    try:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
    except OSError as error:
        # Buffered output must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise StdoutClosedError from None
        raise CommandError(f"standard output can't be written: {error.strerror}") from None


def show_wide_tables(wide: bool) -> None:
    """Choose whether tables have one line for each row, however wide the terminal is."""
    global _wide
    _wide = wide


def show_rows(
    rows: Sequence[Row], output: Format, columns: Sequence[str], empty: str = "", wrap: Sequence[str] = ()
) -> None:
    """Rows as a table of ``columns``, or all their fields as a JSON list or JSON lines.

    If a table would have no rows, ``empty`` is printed on stderr. If the terminal is narrow, only the columns in
    ``wrap`` wrap. Without ``wrap``, all columns do except ids, which stay on one line so that they can be copied. With
    --wide, no column wraps.
    """
    if output == "json":
        show_json(list(rows))
    elif output == "jsonl":
        for row in rows:
            show_json_line(row)
    elif not rows:
        note(empty)
    else:
        _table(rows, columns, wrap)


def show_fields(fields: Row, output: Format) -> None:
    """One thing: its fields below each other, or a JSON object."""
    if output == "table":
        _fields(fields)
    elif output == "json":
        show_json(fields)
    else:
        show_json_line(fields)


def show_json(value: Any) -> None:
    """Indented JSON."""
    write(orjson.dumps(value, default=str, option=_JSON | orjson.OPT_INDENT_2) + b"\n")


def show_json_line(value: Any) -> None:
    """Print one line of JSON immediately."""
    write(orjson.dumps(value, default=str, option=_JSON) + b"\n")


class Stream:
    """Rows that come one by one: lines for people (made by ``line``), or JSON lines, or one JSON list.

    Use it with ``with``: leaving it, for whatever reason, completes the list.
    """

    def __init__(self, output: Format) -> None:
        self._output = output
        self._begun = False

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._output == "json" and kind is not StdoutClosedError:
            write("\n]\n" if self._begun else "[]\n")

    def show(self, row: Row, line: str) -> None:
        """Print one more row immediately."""
        if self._output == "table":
            write(line + "\n")
        elif self._output == "jsonl":
            show_json_line(row)
        else:
            write(
                ("," if self._begun else "[").encode() + b"\n" + orjson.dumps(row, default=str, option=_JSON)
            )
            self._begun = True


def event_line(time: datetime | None, kind: str, subject: str | None, about: str) -> str:
    """A result event as a line for people, cut where the terminal ends; times in UTC."""
    when = "" if time is None else time.strftime("%H:%M:%S.%f")[:12] + "  "
    rest = f"{escaped(subject or '-'):<24} {escaped(about)}".rstrip()
    if not sys.stdout.isatty():
        return f"{when}{kind:<11} {rest}"
    room = (os.get_terminal_size(sys.stdout.fileno()).columns or 80) - len(when) - 12
    if len(rest) > room:
        rest = rest[: max(room - 1, 1)] + "…"
    return f"{_dim(when)}{_coloured(f'{kind:<11}', _LEVELS.get(kind))} {rest}"


def printable(text: str) -> str:
    """``text`` with what could steer a terminal, reorder its text or hide in it written out; new lines stay."""
    return escaped(text, keep="\n")


def _steady(text: str) -> str:
    """``text`` whose only control sequences are colors."""
    parts = _COLOR.split(text)
    return "".join(part if place % 2 else printable(part) for place, part in enumerate(parts))


def _json_for_terminals(raw: bytes) -> bytes:
    # Nothing but strings holds such characters in JSON, and there an escape means the same.
    text = raw.decode(errors="backslashreplace")
    if escaped(text, keep="\n") == text:
        return raw
    return "".join(
        each if each == "\n" or escaped(each) == each else _json_escape(each) for each in text
    ).encode()


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _coloured(text: str, colour: str | None) -> str:
    codes = {"green": "32", "yellow": "33", "red": "31"}
    if colour is None or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{codes[colour]}m{text}\x1b[0m"


def _dim(text: str) -> str:
    return text if "NO_COLOR" in os.environ else f"\x1b[2m{text}\x1b[0m"


def _table(rows: Sequence[Row], columns: Sequence[str], wrap: Sequence[str]) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    cells = {column: [_cell(row.get(column)) for row in rows] for column in columns}
    least = 0
    for column in columns:
        label = column.replace("_", " ")
        numbers = all(type(row.get(column)) is int for row in rows)
        fixed = _wide or column in _IDS or (bool(wrap) and column not in wrap)
        table.add_column(label, justify="right" if numbers else "left", overflow="fold", no_wrap=fixed)
        longest = max(cell_len(label), *(cell.cell_len for cell in cells[column]))
        narrowest = _NARROWEST if longest > _NARROWEST else cell_len(label)
        least += _GAP + (longest if fixed else narrowest)
    for place in range(len(rows)):
        table.add_row(*(cells[column][place] for column in columns))
    _render(table, least - _GAP)


def _fields(fields: Row) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        # As Text, since a name may look like markup.
        label = Text(printable(name.replace("_", " ")))
        table.add_row(label, _cell(value, option=orjson.OPT_INDENT_2))
    _render(table)


def _render(table: Any, least: int = 0) -> None:
    """Print a table as wide as the terminal, or ``least`` columns wide if that is more."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    console.width = max(console.width, least)
    with console.capture() as captured:
        console.print(table)
    write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def _cell(value: Any, option: int = 0) -> "Text":
    from rich.text import Text

    match value:
        case None:
            return Text("-", style="dim")
        case bool():
            return Text("yes" if value else "no")
        case datetime():
            return Text(value.isoformat(timespec="seconds").replace("+00:00", "Z"))
        case [*texts] if all(isinstance(text, str) for text in texts):
            return Text(printable(", ".join(texts)) or "-")
        case dict() | list():
            short = orjson.dumps(value, default=str).decode()
            long = orjson.dumps(value, default=str, option=option).decode() if len(short) > 60 else short
            return Text(printable(long))
        case _:
            text = printable(str(value))
            return Text(text, style=_LEVELS.get(text, ""))


def confirm(what: str, yes: bool) -> None:
    """Ask at a terminal, unless ``yes``; CommandError if the answer is no. A script has said what it wants."""
    if yes or not sys.stdin.isatty():
        return
    note(f"{what[:1].upper()}{what[1:]}. Continue? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was changed")
