"""Reading what delta channels are built from: their nearest stored value and the writes since. Pure.

LangGraph's own code requests one checkpoint after another. Here, the way back is followed on metadata alone, and the
checkpoints are then read together. The answers are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory
from langgraph.checkpoint.serde.base import SerializerProtocol

from waypost.adapters._langgraph_layout import (
    CHECKPOINT,
    WRITES,
    Key,
    digest,
    entries_of,
    key_of,
    loaded,
    pending,
    sound,
    versions_of,
)
from waypost.adapters.allowed_types import MissingValueError, shown
from waypost.adapters.records import Row


@dataclass(slots=True)
class Walk:
    """The way back from a checkpoint. ``path`` are its ancestors, nearest first.

    ``lost`` are channels that go back to an ancestor that no longer exists.
    """

    rows: Sequence[Row]
    path: list[Row]
    open: set[str]
    lost: set[str]
    ends: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # place in path, record, digest

    def numbers(self) -> list[int]:
        """The records to read for an answer: writes along the way, and the values at its ends."""
        keys = {key_of(row) for row in self.path[: self._length()]}
        writes = [row.number for row in self.rows if row.name == WRITES and key_of(row) in keys]
        return writes + [number for _, number, _ in self.ends.values()]

    def _length(self) -> int:
        return (
            len(self.path)
            if self.open
            else max((place for place, _, _ in self.ends.values()), default=-1) + 1
        )


def walk_from(rows: Sequence[Row], ns: str, checkpoint_id: str | None, channels: Sequence[str]) -> Walk:
    """The ancestors of a checkpoint, or of the newest one. ``rows`` are all of the session, without data."""
    rows = sound(rows)
    by_key: dict[Key, Row] = {key_of(row): row for row in rows if row.name == CHECKPOINT}
    if checkpoint_id is None:
        in_ns = (row for row in by_key.values() if row.metadata["ns"] == ns)
        here = max(in_ns, key=lambda row: row.number, default=None)
    else:
        here = by_key.get((ns, checkpoint_id))
    path: list[Row] = []
    lost: set[str] = set()
    seen: set[int] = set()
    while here is not None and (parent := here.metadata.get("parent")) is not None:
        before = by_key.get((ns, parent))
        if before is None:
            lost = set(here.metadata.get("deltas", ()))
        if before is None or before.number in seen:
            break
        here = before
        seen.add(here.number)
        path.append(here)
    return Walk(rows, path, set(channels), lost)


def look_at(walk: Walk, start: int, read: Sequence[Row], serde: SerializerProtocol) -> None:
    """Close the channels whose value is stored at one of the checkpoints ``read``, which begin at ``start``."""
    holders = {held: row.number for row in walk.rows for held in row.metadata.get("holds", ())}
    by_number = {row.number: row for row in read}
    for place, at in enumerate(walk.path[start : start + len(read)], start):
        if (row := by_number.get(at.number)) is None:
            continue  # removed meanwhile
        _, versions = versions_of(serde, row.data, f"checkpoint {at.metadata['id']!r}")
        for channel in sorted(walk.open & versions.keys()):
            named = digest(at.metadata["ns"], channel, versions[channel])
            if named in holders:
                walk.ends[channel] = (place, holders[named], named)
                walk.open.discard(channel)


def histories(
    walk: Walk, channels: Sequence[str], read: Sequence[Row], serde: SerializerProtocol
) -> Mapping[str, DeltaChannelHistory]:
    """Each channel's writes, oldest first, since its nearest stored value, and that value.

    Raises:
        MissingValueError: A channel goes back to a checkpoint that no longer exists.
    """
    for channel in sorted(walk.open & walk.lost):
        raise MissingValueError(
            f"Channel {shown(repr(channel))} is built from checkpoints of which some are missing, so it can't be read. "
            "Nothing was changed. They were removed while a run still needed them, or with the run that put them"
        )
    found: dict[str, DeltaChannelHistory] = {}
    parsed = {row.number: (row, row.data) for row in read}
    by_key: dict[Key, list[dict[str, Any]]] = {}
    for row, data in parsed.values():
        if row.name == WRITES:
            by_key.setdefault(key_of(row), []).append(data)
    for channel in channels:
        end = walk.ends.get(channel)
        path = walk.path if end is None else walk.path[: end[0] + 1]
        found[channel] = {
            "writes": [
                write
                for row in reversed(path)
                for write in pending(by_key.get(key_of(row), []), serde, channel)
            ]
        }
        if end is not None:
            _, number, named = end
            _, data = parsed.get(number, (None, {}))
            found[channel]["seed"] = loaded(serde, entries_of(data).get(named), f"channel {channel!r}")
    return found
