"""What commands print: tables for people, JSON for programs, one line for errors."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

import orjson

Format = Literal["table", "json", "jsonl"]
DONE, FAILED, USAGE = 0, 1, 2


class CommandError(Exception):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def note(message: str) -> None:
    """Something for people, on stderr, so that stdout stays clean."""
    print(message, file=sys.stderr)  # noqa: T201


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the process with one line on stderr."""
    note("waypost: " + " ".join(message.split()))
    raise SystemExit(code)


def show_rows(rows: Sequence[Mapping[str, Any]], output: Format, columns: Sequence[str], empty: str) -> None:
    """Rows as a table of ``columns``, or all their fields as a JSON list or JSON lines."""
    if output == "json":
        show_json(list(rows))
    elif output == "jsonl":
        for row in rows:
            show_json_line(row)
    elif not rows:
        note(empty)
    else:
        _table(rows, columns)


def show_fields(fields: Mapping[str, Any], output: Format) -> None:
    """One thing: a table of names and values, or a JSON object."""
    if output == "table":
        _table([{"": name, "value": value} for name, value in fields.items()], ("", "value"))
    elif output == "json":
        show_json(fields)
    else:
        show_json_line(fields)


def show_json(value: Any) -> None:
    """Indented JSON on stdout."""
    sys.stdout.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode() + "\n")


def show_json_line(value: Any) -> None:
    """One line of JSON on stdout, at once."""
    sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")
    sys.stdout.flush()


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numbers = all(isinstance(row.get(column), int) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    if hasattr(value, "isoformat"):
        return str(value.isoformat(timespec="seconds")).replace("+00:00", "Z")
    return str(value)
