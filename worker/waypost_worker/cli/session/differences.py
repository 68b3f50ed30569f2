"""How two JSON values differ, as a list of changes; and how that is shown. Reads nothing, changes nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import orjson

from waypost_worker.cli.support.output import Format, note, show_rows

if TYPE_CHECKING:
    from waypost.model.checkpoint import Checkpoint

_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}
_LONGEST: Final = 200


class Change(NamedTuple):
    """One place where two values differ. ``path`` is a JSON Pointer (RFC 6901) to it."""

    kind: Literal["added", "removed", "changed"]
    path: str
    before: Any
    after: Any


def contents(checkpoint: "Checkpoint") -> dict[str, Any]:
    """What of a checkpoint is compared: not its id and times, which always differ."""
    return {"name": checkpoint.name, "data": checkpoint.data, "metadata": checkpoint.metadata}


def differences(before: Any, after: Any) -> list[Change]:
    """All changes from one JSON value to another, by path. ``1``, ``1.0`` and ``true`` are different values."""
    from deepdiff import DeepDiff

    # With a threshold, objects with few common keys would count as exchanged as a whole.
    found = DeepDiff(before, after, view="tree", threshold_to_diff_deeper=0)
    changes = [_change(kind, level) for kind, levels in found.items() for level in levels]
    return sorted(changes, key=lambda change: _order(change.path))


def shown(change: Change) -> dict[str, Any]:
    """A change for programs: no ``before`` where it was added, no ``after`` where it was removed."""
    row = {"change": change.kind, "path": change.path, "before": change.before, "after": change.after}
    if change.kind == "added":
        del row["before"]
    elif change.kind == "removed":
        del row["after"]
    return row


def show_changes(rows: Sequence[dict[str, Any]], output: Format) -> None:
    """Changes as :func:`shown` makes them: a table, or JSON lines."""
    if output != "table":
        show_rows(rows, output, ())
        return
    cut = [
        {
            "": _SIGNS[row["change"]],
            "path": row["path"],
            **{side: _short(row[side]) for side in ("before", "after") if side in row},
        }
        for row in rows
    ]
    show_rows(cut, output, ("", "path", "before", "after"), wrap=("path", "before", "after"))
    note(summary(rows))


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """How many of each kind, in words."""
    kinds = [row["change"] for row in rows]
    counts = [f"{kinds.count(kind)} {kind}" for kind in _SIGNS if kind in kinds]
    return ", ".join(counts) or "no difference"


def _change(kind: str, level: Any) -> Change:
    steps = level.path(output_format="list")
    path = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)
    if kind.endswith("_added"):
        return Change("added", path, None, level.t2)
    if kind.endswith("_removed"):
        return Change("removed", path, level.t1, None)
    return Change("changed", path, level.t1, level.t2)


def _order(path: str) -> list[tuple[int, int, str]]:
    return [(0, int(step), "") if step.isdecimal() else (1, 0, step) for step in path.split("/")]


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
