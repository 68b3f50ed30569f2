"""The layout of LangGraph's checkpoints, channel values and writes in a session. Pure.

A put is one record, ``checkpoint``: the checkpoint without its channel values, and the values that are new in it. So a
value is stored once per version, not once per checkpoint. A large value gets a separate record, ``values``, before it.
Metadata links them by digests of (namespace, channel, version): a checkpoint ``needs`` those of all its values, a
record ``holds`` those of its values. ``writes`` are the writes of one task. :mod:`waypost.adapters._langgraph_cleanup`
decides what may be removed.

``exact`` says that a checkpoint needs the values it had and no others, so one that is missing is an error. Records of
version 0.1 lack it: they also name channels that had no value.
"""

import base64
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from waypost.adapters.allowed_types import DecodeError, MissingValueError, UnreadableValueError, shown
from waypost.adapters.records import PART, Record, Row, require_searchable, storable
from waypost.errors import InvalidCommandError, quoted
from waypost.model.limits import MAX_METADATA_BYTES

CHECKPOINT: Final = "checkpoint"
VALUES: Final = "values"
WRITES: Final = "writes"
_LARGE: Final = 16 * 1024  # bytes in base64 from which a value gets a separate record
_TOGETHER: Final = 128 * 1024  # bytes of values in one record
_COUNT: Final = 100  # values in one record: their digests must fit in its metadata
_FACT_KEY: Final = 64
_FACT_TEXT: Final = 256
_FACTS_BYTES: Final = 4_000
_ROOM: Final = 128  # bytes of metadata, for what the parts of a large record have in common
_CHANNELS: Final = 700  # with values, in one checkpoint
Key = tuple[str, str]  # namespace, checkpoint id
Entry = dict[str, Any]  # a value: its digest, type and base64


def digest(ns: str, channel: str, version: Any) -> str:
    """The key of a value."""
    try:
        named = orjson.dumps([ns, channel, version])
    except TypeError as error:
        raise InvalidCommandError(
            "invalid-body",
            f"the channel {quoted(channel)} in the namespace {quoted(ns)}, version {quoted(version)}, has no place: "
            f"{error}",
        ) from None
    return base64.urlsafe_b64encode(hashlib.blake2b(named, digest_size=9).digest()).decode()


def checkpoint_records(
    serde: SerializerProtocol,
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    *,
    stored: Collection[str] = (),
    name: Mapping[str, str] | None = None,
) -> tuple[list[Record], Record]:
    """The records of large values, which go first, and the record of the checkpoint.

    ``config`` is the ``configurable`` part, whose checkpoint id is the parent's. Of the values that are not new, those
    whose digests are in ``stored`` are not stored again. ``name`` is metadata with the thread's id.
    """
    ns = config.get("checkpoint_ns", "")
    require_searchable("checkpoint_ns", ns)
    require_searchable("the checkpoint's id", checkpoint["id"])
    values = checkpoint["channel_values"]
    bare = {key: value for key, value in checkpoint.items() if key != "channel_values"}
    versions = {**checkpoint["channel_versions"], **new_versions}
    needs = {digest(ns, channel, versions[channel]): channel for channel in values if channel in versions}
    entries = [
        {"digest": need, **_typed(serde, values[channel])}
        for need, channel in needs.items()
        if channel in new_versions or need not in stored
    ]
    *before, inline = packed(entries) or [[]]
    if inline and len(inline[0]["base64"]) > _LARGE:
        before, inline = [*before, inline], []
    facts, more = _facts(metadata)
    described: dict[str, Any] = {
        "ns": ns,
        "id": checkpoint["id"],
        "needs": sorted(needs),
        "exact": True,
        "holds": [entry["digest"] for entry in inline],
        "facts": facts,
        **({"more": True} if more else {}),
        **(name or {}),
    }
    if parent := config.get("checkpoint_id"):
        described["parent"] = parent
    if above := _above(metadata):
        described["above"] = above
    counted = metadata.get("counters_since_delta_snapshot", {})
    if deltas := counted.keys() & checkpoint["channel_versions"].keys() - values.keys():
        described["deltas"] = sorted(deltas)
    if len(orjson.dumps(described)) > MAX_METADATA_BYTES - _ROOM:
        raise InvalidCommandError(
            "too-large",
            f"this checkpoint has {len(needs)} channels with values. About {_CHANNELS} fit into one, less if "
            "namespaces and ids are long. Nothing was stored: keep several values in one channel",
        )
    data = {"checkpoint": _typed(serde, bare), "metadata": _typed(serde, metadata), "values": inline}
    return [values_record(group) for group in before], Record(CHECKPOINT, data, described)


def tell(record: Record, told: Mapping[str, Any]) -> Record:
    """Return the record of a checkpoint with metadata for those who watch the thread, as far as there is room."""
    described = dict(record.metadata)
    for key, value in told.items():
        if len(orjson.dumps(described | {key: value})) <= MAX_METADATA_BYTES - _ROOM:
            described[key] = value
    return record._replace(metadata=described)


def _above(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The checkpoints of graphs above this one, by namespace, with which it leaves."""
    parents = metadata.get("parents")
    if not isinstance(parents, Mapping):
        return {}
    return {str(ns): str(checkpoint_id) for ns, checkpoint_id in parents.items()}


def values_record(entries: Sequence[Entry]) -> Record:
    """A record of values alone."""
    return Record(VALUES, {"values": list(entries)}, {"holds": [entry["digest"] for entry in entries]})


def writes_record(
    serde: SerializerProtocol,
    config: Mapping[str, Any],
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    told: Mapping[str, Any] | None = None,
) -> Record:
    """The record of what a task wrote. ``told`` is metadata for those who watch the thread."""
    require_searchable("checkpoint_ns", config.get("checkpoint_ns", ""))
    require_searchable("the checkpoint's id", config["checkpoint_id"])
    placed = [
        (WRITES_IDX_MAP.get(channel, idx), channel, value) for idx, (channel, value) in enumerate(writes)
    ]
    key = (config.get("checkpoint_ns", ""), config["checkpoint_id"])
    return task_record(serde, key, task_id, task_path, placed, told)


def task_record(
    serde: SerializerProtocol,
    key: Key,
    task_id: str,
    task_path: str,
    writes: Iterable[tuple[int, str, Any]],
    told: Mapping[str, Any] | None = None,
) -> Record:
    """The same of writes whose places are known: place, channel and value of each."""
    data = {
        "task_id": task_id,
        "task_path": task_path,
        "writes": [
            {"idx": idx, "channel": channel, **_typed(serde, value)} for idx, channel, value in writes
        ],
    }
    return Record(WRITES, data, {"ns": key[0], "id": key[1], **(told or {})})


def sound(rows: Iterable[Row]) -> list[Row]:
    """The records whose metadata are as the adapter writes them.

    Other writers to the command topic can put other records into a session. They are passed over, because no
    checkpoint, value or write of a graph looks like them.
    """
    return [row for row in rows if _is_sound(row)]


def _is_sound(row: Row) -> bool:
    found = row.metadata
    if row.name == PART:
        return row.batch is not None
    if row.name == VALUES:
        return _all_texts(found.get("holds"))
    if row.name not in (CHECKPOINT, WRITES) or not all(
        isinstance(found.get(key), str) for key in ("ns", "id")
    ):
        return False
    return row.name == WRITES or (
        _all_texts(found.get("needs"))
        and _all_texts(found.get("holds"))
        and isinstance(found.get("facts", {}), dict)
        and isinstance(found.get("parent"), str | None)
        and _all_texts(found.get("deltas", []))
    )


def _all_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def entries_of(data: Mapping[str, Any]) -> dict[str, Entry]:
    """The values in a record's data, by digest."""
    found = data.get("values")
    return {
        entry["digest"]: entry
        for entry in (found if isinstance(found, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("digest"), str)
    }


def _writes_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the writes in a record's data; none if it does not belong to a task."""
    found = data.get("writes")
    if not isinstance(found, list) or not all(
        isinstance(data.get(key), str) for key in ("task_id", "task_path")
    ):
        return []
    return [
        write
        for write in found
        if isinstance(write, dict) and type(write.get("idx")) is int and isinstance(write.get("channel"), str)
    ]


def versions_of(
    serde: SerializerProtocol, data: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint without its values, and the versions of its channels.

    Raises:
        UnreadableValueError: It is not valid.
    """
    bare = loaded(serde, data.get("checkpoint"), where)
    versions = bare.get("channel_versions") if isinstance(bare, dict) else None
    if not isinstance(versions, dict):
        raise _none_of_ours("it is not a checkpoint of LangGraph", where)
    return bare, versions


def _none_of_ours(reason: str, where: str) -> UnreadableValueError:
    error = DecodeError(reason).on_read("")
    error.add_note(f"In {shown(where)}.")
    return error


def tuples(
    thread_id: str,
    rows: Sequence[Row],
    serde: SerializerProtocol,
    of_values: SerializerProtocol | None = None,
) -> list[CheckpointTuple]:
    """The chosen checkpoints among ``rows`` (rising), newest first, with their values and writes.

    ``of_values`` reads the values of channels and writes, if not the same serializer.

    Raises:
        MissingValueError: A checkpoint needs a value that is not there.
        UnreadableValueError: One of them is not valid, or a value can't be read.
    """
    parsed = [(row, row.data) for row in sound(rows)]
    held = {digest: entry for _, data in parsed for digest, entry in entries_of(data).items()}
    writes: dict[Key, list[dict[str, Any]]] = {}
    for row, data in parsed:
        if row.name == WRITES:
            writes.setdefault(key_of(row), []).append(data)
    return [
        _tuple(thread_id, row, data, held, writes.get(key_of(row), []), serde, of_values or serde)
        for row, data in reversed(parsed)
        if row.chosen
    ]


def newest_of(rows: Sequence[Row], wanted: Mapping[str, Any]) -> Row | None:
    """The newest checkpoint among ``rows`` whose metadata have these members, or None."""
    for row in reversed(rows):
        if row.name == CHECKPOINT and all(row.metadata.get(key) == value for key, value in wanted.items()):
            return row
    return None


def held_by(rows: Sequence[Row]) -> set[str]:
    """The digests of the values that ``rows`` hold, of those that the chosen ones need."""
    rows = sound(rows)
    needs = {need for row in rows if row.chosen for need in row.metadata["needs"]}
    return {held for row in rows for held in row.metadata.get("holds", ()) if held in needs}


def matching(wanted: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Return whether LangGraph's metadata passes a filter of ``alist``."""
    return all(metadata.get(key) == value for key, value in wanted.items())


def searchable(wanted: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts of a filter that Postgres can judge. Two dicts: texts, and integers.

    Each record that passes the filter contains the facts of the first. It may lack some of the second, since True and
    1.0 equal 1 and are not facts.
    """
    facts = {key: value for key, value in wanted.items() if _is_fact(key, value)}
    texts = {key: value for key, value in facts.items() if isinstance(value, str)}
    return texts, {key: value for key, value in facts.items() if key not in texts}


def _tuple(
    thread_id: str,
    row: Row,
    data: dict[str, Any],
    held: Mapping[str, Entry],
    writes: Sequence[dict[str, Any]],
    serde: SerializerProtocol,
    of_values: SerializerProtocol,
) -> CheckpointTuple:
    ns, checkpoint_id = key_of(row)
    here = _place_of(row, thread_id)
    bare, versions = versions_of(serde, data, here)
    values = {}
    for channel, version in versions.items():
        need = _digest_read(ns, channel, version, here)
        exact = row.metadata.get("exact")
        if exact and need not in row.metadata["needs"]:
            continue  # another checkpoint on this page has a value of that version, this one had none
        if (entry := held.get(need)) is not None:
            values[channel] = loaded(of_values, entry, f"channel {channel!r} of {here}")
        elif exact:
            raise MissingValueError(
                f"The value of channel {shown(repr(channel))} of {shown(here)} is missing, so the checkpoint can't be "
                "read. Nothing was changed. It was removed while a run still needed it, or in part by another program"
            )
    metadata = _metadata(serde, data, here)
    parent = row.metadata.get("parent")
    return CheckpointTuple(
        config=config_of(thread_id, ns, checkpoint_id),
        checkpoint=cast(Checkpoint, {**bare, "channel_values": values}),
        metadata=cast(CheckpointMetadata, metadata),
        parent_config=None if parent is None else config_of(thread_id, ns, parent),
        pending_writes=pending(writes, of_values),
    )


def parts_of(
    serde: SerializerProtocol, row: Row, thread_id: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A checkpoint without its values, its metadata, and the values that its own record holds.

    Raises:
        UnreadableValueError: It is not valid, or a value can't be read.
    """
    data, here = row.data, _place_of(row, thread_id)
    bare, versions = versions_of(serde, data, here)
    held = entries_of(data)
    values = {
        channel: loaded(serde, held[need], f"channel {channel!r} of {here}")
        for channel, version in versions.items()
        if (need := _digest_read(row.metadata["ns"], channel, version, here)) in held
    }
    return bare, _metadata(serde, data, here), values


def _place_of(row: Row, thread_id: str) -> str:
    return f"checkpoint {row.metadata['id']!r} of thread {thread_id!r}"


def _metadata(serde: SerializerProtocol, data: Mapping[str, Any], where: str) -> dict[str, Any]:
    metadata = loaded(serde, data.get("metadata"), f"the metadata of {where}")
    if not isinstance(metadata, dict):
        raise _none_of_ours("it is not metadata of LangGraph", f"the metadata of {where}")
    return metadata


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    """The config that names a checkpoint."""
    return {
        "configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id},
    }


def pending(
    records: Sequence[dict[str, Any]], serde: SerializerProtocol, channel: str | None = None
) -> list[PendingWrite]:
    """The writes to a checkpoint, or those to one channel, in the order in which a run applies them."""
    # Of a task's write sent twice the first counts; of an error or interrupt, which have places of their own
    # below zero, the last.
    found: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {}
    for record in records:
        for write in _writes_of(record):
            place = (record["task_id"], write["idx"])
            if place[1] < 0 or place not in found:
                found[place] = (record["task_path"], write)
    ordered = sorted(found.items(), key=lambda item: writes_sort_key(item[1][0], *item[0]))
    return [
        (
            task_id,
            write["channel"],
            loaded(serde, write, f"channel {write['channel']!r}, written by {task_id!r}"),
        )
        for (task_id, _), (_, write) in ordered
        if channel is None or write["channel"] == channel
    ]


def packed(entries: Sequence[Entry]) -> list[list[Entry]]:
    # Large ones alone and first: what is small and old must not be read together with what is large and outdated.
    groups: list[list[Entry]] = []
    size = 0
    for entry in sorted(entries, key=lambda entry: -len(entry["base64"])):
        length = len(entry["base64"])
        if not groups or length > _LARGE or size + length > _TOGETHER or len(groups[-1]) == _COUNT:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size = _TOGETHER if length > _LARGE else size + length
    return groups


def _facts(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    facts = {key: value for key, value in metadata.items() if _is_fact(key, value)}
    if len(orjson.dumps(facts)) <= _FACTS_BYTES:
        return facts, False
    run_id = facts.get("run_id")
    return ({} if run_id is None else {"run_id": run_id}), True


def _is_fact(key: str, value: Any) -> bool:
    if not isinstance(key, str) or len(key) > _FACT_KEY or not storable(key):
        return False
    if isinstance(value, str):
        return len(value) <= _FACT_TEXT and value.isprintable()
    return type(value) is int and abs(value) < 2**53


def _typed(serde: SerializerProtocol, value: Any) -> dict[str, str]:
    try:
        kind, raw = serde.dumps_typed(value)
    except (TypeError, UnicodeError) as error:
        if "surrogate" not in str(error):
            raise
        raise InvalidCommandError("invalid-body", f"a value can't be stored: {quoted(str(error))}") from error
    return {"type": kind, "base64": base64.b64encode(raw).decode()}


def _digest_read(ns: str, channel: Any, version: Any, where: str) -> str:
    try:
        return digest(ns, channel, version)
    except InvalidCommandError:
        raise _none_of_ours(f"the version of its channel {quoted(channel)} is not a version", where) from None


def loaded(serde: SerializerProtocol, typed: Any, where: str) -> Any:
    """Return what was stored as type and base64. UnreadableValueError, with a note that says ``where``, if it can't."""
    try:
        try:
            kind, raw = str(typed["type"]), base64.b64decode(typed["base64"])
        except (KeyError, TypeError, ValueError) as error:
            raise DecodeError("it lacks a type and data in base64").on_read("") from error
        return serde.loads_typed((kind, raw))
    except UnreadableValueError as error:
        error.add_note(f"In {shown(where)}.")
        raise


def key_of(row: Row) -> Key:
    """The checkpoint that a record of a checkpoint or of writes is about."""
    return row.metadata["ns"], row.metadata["id"]
