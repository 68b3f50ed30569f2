"""How changes between two checkpoints are printed."""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from waypost_worker.cli.support.output import Format, note, show_rows
from waypost_worker.operations.differences import SIGNS, summary

_LONGEST: Final = 200


def show_changes(rows: Sequence[dict[str, Any]], output: Format) -> None:
    """Print changes as ``operations.differences.shown`` makes them: a table, or JSON lines."""
    if output != "table":
        show_rows(rows, output, ())
        return
    cut = [
        {
            "": SIGNS[row["change"]],
            "path": row["path"],
            **{side: _short(row[side]) for side in ("before", "after") if side in row},
        }
        for row in rows
    ]
    show_rows(cut, output, ("", "path", "before", "after"), wrap=("path", "before", "after"))
    note(summary(rows))


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
