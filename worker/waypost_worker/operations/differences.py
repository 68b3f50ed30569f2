"""Differences between two JSON values, as a list of changes. Pure."""

from collections.abc import Hashable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import orjson

if TYPE_CHECKING:
    from waypost.model.checkpoint import Checkpoint

# Longer stretches of two lists are compared place by place: to match them takes time with the square of their length.
_MATCHED: Final = 500
_CUT: Final = "…"
_CONTEXT: Final = 2
SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}


class Change(NamedTuple):
    """One place where two values differ. ``path`` is a JSON Pointer (RFC 6901) to it."""

    kind: Literal["added", "removed", "changed"]
    path: str
    before: Any
    after: Any


def contents(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the compared parts of a checkpoint: not its id and times, which always differ."""
    return {"name": checkpoint.name, "data": checkpoint.data, "metadata": checkpoint.metadata}


def differences(
    before: Any, after: Any, *, most: int | None = None, longest_path: int | None = None
) -> list[Change]:
    """Return all changes from one JSON value to another, by path. ``1``, ``1.0`` and ``true`` are different values.

    A path is that in ``after``, or of what was removed that in ``before``. It takes time in proportion to the values,
    and at most ``most`` changes are looked for. Keys may have 900 KB, and each change below one repeats it: with
    ``longest_path``, a path that gets longer ends in an ellipsis.
    """
    changes = islice(_changes(_Path("", longest_path), before, after), most)
    return sorted(changes, key=lambda change: _order(change.path))


class TextLine(NamedTuple):
    """Line of a string that changed: ``-`` was there, ``+`` is there, a blank is in both, ``…`` were left out."""

    sign: Literal["-", "+", " ", "…"]
    text: str


def changed_lines(change: Change, *, most: int = 100) -> list[TextLine]:
    """Return a changed string line by line, with two equal lines around each difference.

    At most ``most`` lines are returned, and then how many were left out. Return no lines if ``change`` is not from one
    string to another, or both have a single line.
    """
    before, after = change.before, change.after
    if not isinstance(before, str) or not isinstance(after, str) or "\n" not in before + after:
        return []
    old, new = before.split("\n"), after.split("\n")
    lines = list(islice(_with_context(old, new), most + 1))
    if len(lines) <= most:
        return lines
    return [*lines[:most], TextLine("…", "and more lines")]


def _with_context(old: list[str], new: list[str]) -> Iterator[TextLine]:
    """Yield the lines that differ, and those around them."""
    told = 0  # of the new lines, those that were yielded or left out
    for gone, come in _stretches(old, new):
        yield from _between(new, told, come.start, is_first=told == 0)
        for at in gone:
            yield TextLine("-", old[at])
        for at in come:
            yield TextLine("+", new[at])
        told = come.stop
    yield from (TextLine(" ", line) for line in new[told : told + _CONTEXT])
    if len(new) > told + _CONTEXT:
        yield _left_out(len(new) - told - _CONTEXT)


def _between(new: list[str], start: int, end: int, *, is_first: bool) -> Iterator[TextLine]:
    """Yield equal lines between two differences, or only those next to them."""
    head = start if is_first else min(end, start + _CONTEXT)
    tail = max(head, end - _CONTEXT)
    yield from (TextLine(" ", line) for line in new[start:head])
    if tail > head:
        yield _left_out(tail - head)
    yield from (TextLine(" ", line) for line in new[tail:end])


def _left_out(count: int) -> TextLine:
    return TextLine("…", f"{count:,} equal line{'' if count == 1 else 's'}")


def shown(change: Change) -> dict[str, Any]:
    """A change for programs: no ``before`` where it was added, no ``after`` where it was removed."""
    row = {"change": change.kind, "path": change.path, "before": change.before, "after": change.after}
    if change.kind == "added":
        del row["before"]
    elif change.kind == "removed":
        del row["after"]
    return row


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Describe how many changes of each kind there are."""
    kinds = [row["change"] for row in rows]
    counts = [f"{kinds.count(kind)} {kind}" for kind in SIGNS if kind in kinds]
    return ", ".join(counts) or "no difference"


class _Path(NamedTuple):
    """A JSON Pointer, and how long it may get."""

    text: str
    longest: int | None

    def below(self, step: str | int) -> "_Path":
        """The pointer to a member or an item."""
        if self.longest is not None and len(self.text) > self.longest:
            return self
        text = f"{self.text}/{str(step).replace('~', '~0').replace('/', '~1')}"
        if self.longest is not None and len(text) > self.longest:
            text = text[: self.longest] + _CUT
        return _Path(text, self.longest)


def _changes(path: _Path, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from _changes(path.below(key), value, after[key])
            else:
                yield Change("removed", path.below(key).text, value, None)
        for key, value in after.items():
            if key not in before:
                yield Change("added", path.below(key).text, None, value)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _items(path, before, after)
    elif type(before) is not type(after) or _text(before) != _text(after):
        yield Change("changed", path.text, before, after)


def _items(path: _Path, before: list[Any], after: list[Any]) -> Iterator[Change]:
    for old, new in _stretches([_text(item) for item in before], [_text(item) for item in after]):
        common = min(len(old), len(new))
        for at in range(common):
            yield from _changes(path.below(new[at]), before[old[at]], after[new[at]])
        for at in old[common:]:
            yield Change("removed", path.below(at).text, before[at], None)
        for at in new[common:]:
            yield Change("added", path.below(at).text, None, after[at])


def _stretches(before: Sequence[Hashable], after: Sequence[Hashable]) -> Iterator[tuple[range, range]]:
    """Places in both lists between those that are equal."""
    shorter = min(len(before), len(after))
    first = 0
    while first < shorter and before[first] == after[first]:
        first += 1
    last = 0
    while last < shorter - first and before[-1 - last] == after[-1 - last]:
        last += 1
    old, new = range(first, len(before) - last), range(first, len(after) - last)
    if max(len(old), len(new)) > _MATCHED:
        yield old, new
        return
    matcher = SequenceMatcher(None, before[old.start : old.stop], after[new.start : new.stop], autojunk=False)
    for kind, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        if kind != "equal":
            yield old[old_start:old_end], new[new_start:new_end]


def _text(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _order(path: str) -> list[tuple[int, int, str]]:
    return [
        (0, int(step), "") if step.isdecimal() and step.isascii() and len(step) < 20 else (1, 0, step)
        for step in path.split("/")
    ]
