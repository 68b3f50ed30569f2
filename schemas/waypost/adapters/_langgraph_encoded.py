"""Checkpoints of LangGraph whose values stay as they were encoded: no object in them is ever built. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple

import ormsgpack
from langgraph.checkpoint.base import CheckpointTuple, writes_sort_key
from typing_extensions import override

from waypost.adapters import _langgraph_layout as layout
from waypost.adapters._langgraph_serializer import needed_types
from waypost.adapters.allowed_types import DecodeError, shown
from waypost.adapters.records import Record

MSGPACK: Final = "msgpack"
_OPTIONS: Final = ormsgpack.OPT_NON_STR_KEYS


class Encoded(NamedTuple):
    """A value as a checkpointer stored it."""

    kind: str
    raw: bytes


class Write(NamedTuple):
    """A task's write to one channel; ``idx`` is its place among the writes of the task."""

    task_id: str
    task_path: str
    idx: int
    channel: str
    value: Encoded


@dataclass(slots=True)
class EncodedCheckpoint:
    """A checkpoint, its metadata, and what tasks wrote to it. ``bare`` is the checkpoint without its values."""

    ns: str
    id: str
    parent: str | None
    bare: dict[str, Any]
    metadata: dict[str, Any]
    values: dict[str, Encoded]
    writes: list[Write] = field(default_factory=list)

    @property
    def key(self) -> layout.Key:
        """The identity of a checkpoint in its thread."""
        return self.ns, self.id

    def pending(self) -> list[tuple[str, str, Encoded]]:
        """Return the writes in the order in which a run applies them."""
        ordered = sorted(
            self.writes, key=lambda each: writes_sort_key(each.task_path, each.task_id, each.idx)
        )
        return [(each.task_id, each.channel, each.value) for each in ordered]

    def needed_types(self) -> set[str]:
        """Return the types that must be allowed so that this can be read.

        Raises:
            DecodeError: A value can't be read, whatever is allowed. The reason names its channel.
        """
        found: set[str] = set()
        named = [(f"channel {channel!r}", value) for channel, value in self.values.items()]
        named += [
            (f"the write of task {each.task_id!r} to {each.channel!r}", each.value) for each in self.writes
        ]
        for what, value in named:
            try:
                found.update(needed_types(*value))
            except DecodeError as error:
                raise DecodeError(f"{shown(what)}: {error.reason}") from None
        return found


class _Extension:
    """A MessagePack extension, which names an object and is left as it is."""

    def __init__(self, code: int, raw: bytes) -> None:
        self.value = (code, bytes(raw))

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Extension) and self.value == other.value

    @override
    def __hash__(self) -> int:
        return hash(self.value)


def encoded(value: Any) -> Encoded:
    """Encode plain data, and what :func:`unpacked` left as it is."""
    if value is None:
        return Encoded("null", b"")
    return Encoded(MSGPACK, ormsgpack.packb(value, default=_extension, option=_OPTIONS))


def unpacked(raw: bytes) -> Any:
    """Decode MessagePack, with the objects in it left as they are.

    Raises:
        DecodeError: It is not MessagePack.
    """
    try:
        return ormsgpack.unpackb(raw, ext_hook=_Extension, option=_OPTIONS)
    except ValueError as error:
        raise DecodeError(f"it is not valid MessagePack ({error})") from None


def _extension(value: Any) -> Any:
    if isinstance(value, _Extension):
        return ormsgpack.Ext(*value.value)
    raise TypeError(f"{type(value).__name__} is not plain data")


class _Bare:
    """Serializer of checkpoints without their values, and of metadata. Values that are encoded pass."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return obj if isinstance(obj, Encoded) else encoded(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, raw = data
        try:
            return None if kind == "null" else unpacked(raw)
        except DecodeError as error:
            raise error.on_read("") from None


class _Values(_Bare):
    """Serializer of values, which stay encoded."""

    @override
    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return Encoded(*data)


BARE: Final = _Bare()
VALUES: Final = _Values()


def records_of(
    checkpoint: EncodedCheckpoint, stored: Mapping[str, Encoded], name: Mapping[str, str]
) -> list[Record]:
    """Return the records of a checkpoint, in the order in which to store them.

    Those of ``stored``, by digest, are not stored again. ``name`` is metadata that tell the thread's id.
    """
    config = {"checkpoint_ns": checkpoint.ns, "checkpoint_id": checkpoint.parent}
    whole: Any = {**checkpoint.bare, "channel_values": checkpoint.values}
    metadata: Any = checkpoint.metadata
    before, record = layout.checkpoint_records(BARE, config, whole, metadata, {}, stored=stored, name=name)
    return [*before, record, *writes_records(checkpoint.key, checkpoint.writes)]


def writes_records(key: layout.Key, writes: Sequence[Write]) -> Iterator[Record]:
    """Yield a record for each task."""
    ordered = sorted(writes, key=lambda each: (each.task_id, each.task_path, each.idx))
    for (task_id, task_path), group in groupby(ordered, key=lambda each: (each.task_id, each.task_path)):
        placed = [(each.idx, each.channel, each.value) for each in group]
        yield layout.task_record(BARE, key, task_id, task_path, placed)


def digests_of(checkpoint: EncodedCheckpoint) -> dict[str, Encoded]:
    """The values by what they are found by; those without a version have none, and can't be stored."""
    versions = checkpoint.bare["channel_versions"]
    return {
        layout.digest(checkpoint.ns, channel, versions[channel]): value
        for channel, value in checkpoint.values.items()
        if channel in versions
    }


def differences(checkpoint: EncodedCheckpoint, stored: CheckpointTuple) -> list[str]:
    """Name what of a checkpoint that was read back is not as it was."""
    bare: dict[str, Any] = {**stored.checkpoint}
    values = bare.pop("channel_values")
    parent = (stored.parent_config or {"configurable": {}})["configurable"].get("checkpoint_id")
    same = {
        "checkpoint": bare == checkpoint.bare,
        "values": values == checkpoint.values,
        "metadata": stored.metadata == checkpoint.metadata,
        "parent": parent == checkpoint.parent,
        "writes": stored.pending_writes == checkpoint.pending(),
    }
    return [what for what, equal in same.items() if not equal]
