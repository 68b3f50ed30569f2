"""Print changes between two checkpoints."""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from waypost_worker.cli.support.output import Format, note, show_rows
from waypost_worker.operations.differences import SIGNS, Change, changed_lines, summary

_LONGEST: Final = 200
_MOST_LINES: Final = 40


def show_changes(rows: Sequence[dict[str, Any]], output: Format) -> None:
    """Print changes as ``operations.differences.shown`` makes them: a table, or JSON lines."""
    if output != "table":
        show_rows(rows, output, ())
        return
    cut = [
        {
            "": SIGNS[row["change"]],
            "path": row["path"],
            **_sides(row),
        }
        for row in rows
    ]
    show_rows(cut, output, ("", "path", "before", "after"), wrap=("path", "before", "after"))
    note(summary(rows))


def _sides(row: dict[str, Any]) -> dict[str, str]:
    """Return the old and the new value; of a text, only the lines that differ and their context."""
    lines = changed_lines(
        Change(row["change"], row["path"], row.get("before"), row.get("after")), most=_MOST_LINES
    )
    if not lines:
        return {side: _short(row[side]) for side in ("before", "after") if side in row}
    return {
        side: "\n".join(f"{line.sign} {line.text[:_LONGEST]}" for line in lines if line.sign != other)
        for side, other in (("before", "+"), ("after", "-"))
    }


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
