"""Records that may be removed from a LangGraph thread: none that a kept checkpoint, or a run in progress, can still
need. Pure.

A run keeps what it read or put last, no matter how many checkpoints others put in the meantime, and its next put stores
only what is new. So the values of a checkpoint stay for a while after another one becomes the newest of its namespace,
which is a lease. A saver stores a value again unless it knows that the value was there a shorter while ago. Neither
needs to know about the other. The lease is measured by the brokers' time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from waypost.adapters._langgraph_layout import (
    CHECKPOINT,
    VALUES,
    WRITES,
    Key,
    entries_of,
    key_of,
    packed,
    sound,
    values_record,
)
from waypost.adapters.records import PART, Record, Row, gone_with_parts, texts

#: Digests of leased values whose checkpoint has left.
LEASED: Final = "leased"
#: A clean-up under way, so that no other one begins.
SWEEP: Final = "sweep"
#: What nothing refers to may also be on its way: a value before its checkpoint, writes before theirs.
LEASE: Final = timedelta(minutes=10)
#: #: For this many seconds after it knew that a value was there, a saver relies on it. The rest of a lease allows for
#: delays.
RELY_SECONDS: Final = 240.0
#: A clean-up that began before that was interrupted.
SWEEP_LIFE: Final = timedelta(minutes=3)
#: So long a clean-up may take. With RELY_SECONDS it is well below a lease.
SWEEP_SECONDS: Final = 150.0
#: From this many records on, checkpoints leave before their lease ends, and only their values stay.
CROWDED: Final = 2_000
_IN_ONE: Final = 500  # digests in one record


@dataclass(frozen=True, slots=True)
class CleanupPlan:
    """The steps to remove checkpoints: store ``leases``, then store again what others need, then delete."""

    leases: list[Record]
    carry: set[str]  # digests
    carriers: list[int]  # numbers of the records that hold them
    gone: list[int]


def plan(rows: Sequence[Row], dropped: set[Key], *, leased: bool = True) -> CleanupPlan:
    """Plan the removal of the ``dropped`` checkpoints with their writes and the values that nothing else needs.

    ``rows`` are all rows of the session, in ascending order, without data. If not ``leased``, values that only runs in
    progress may need are removed immediately.
    """
    rows = _sound(rows)
    since = _now(rows) - LEASE
    checkpoints = [row for row in rows if row.name == CHECKPOINT]
    present = {key_of(row) for row in checkpoints}
    staying = {need for row in checkpoints if key_of(row) not in dropped for need in row.metadata["needs"]}
    released = {need for row in checkpoints if key_of(row) in dropped for need in row.metadata["needs"]}
    held = {digest for row in rows for digest in row.metadata.get("holds", ())}
    ends = _ends(rows)
    young = {
        need
        for row in checkpoints
        if leased and key_of(row) in dropped and _is_leased(ends[key_of(row)], since)
        for need in row.metadata["needs"]
    }
    before = {
        need
        for row in rows
        if row.name == LEASED and row.recorded_at > since
        for need in texts(row.metadata["needs"])
    }
    needed = staying | young | (before if leased else before - released)
    batches = {row.batch for row in rows if row.name != PART}

    def leaves(row: Row) -> bool:
        old = row.recorded_at <= since
        if row.name == CHECKPOINT:
            return key_of(row) in dropped
        if row.name == WRITES:
            return key_of(row) in dropped or (old and key_of(row) not in present)
        if row.name == VALUES:
            holds = set(row.metadata["holds"])
            return not holds & needed and (old or bool(holds & released))
        if row.name == LEASED:
            return row.recorded_at <= since
        if row.name == SWEEP:
            return row.recorded_at <= _now(rows) - SWEEP_LIFE
        return old and row.batch not in batches

    gone = {row.number for row in rows if leaves(row)}
    kept = {digest for row in rows if row.number not in gone for digest in row.metadata.get("holds", ())}
    carry = (needed - kept) & held
    carriers = [row for row in rows if row.number in gone and carry & set(row.metadata.get("holds", ()))]
    return CleanupPlan(
        _leases(sorted((young & held) - staying)),
        carry,
        [row.number for row in carriers],
        gone_with_parts(rows, gone),
    )


def carried(rows: Iterable[Row], carry: set[str]) -> list[Record]:
    """Records of the values in ``carry`` that are held by ``rows``, which leave."""
    entries = {digest: entry for row in rows for digest, entry in entries_of(row.data).items()}
    wanted = [entries[each] for each in sorted(carry & entries.keys())]
    # A value without base64 can't be read, so nothing is lost without it.
    return [
        values_record(group)
        for group in packed([each for each in wanted if isinstance(each.get("base64"), str)])
    ]


def older_than_newest(rows: Sequence[Row], keep: int, *, at_once: bool) -> set[Key]:
    """All checkpoints but the newest ``keep`` of each namespace, and but what their delta channels go back to.

    A delta channel is stored now and then; in between it is built from the writes of the checkpoints before. The
    namespace of one call of a subgraph leaves with the checkpoint that the call belongs to. Unless ``at_once``,
    checkpoints stay for as long as a run under way may still be at them.
    """
    rows = _sound(rows)
    by_key = {key_of(row): row for row in rows if row.name == CHECKPOINT}
    since = _now(rows) - LEASE
    ends = _ends(rows)
    staying = {key for newest in _newest(by_key, keep).values() for key in newest}
    followed = {(key[0], row.metadata.get("parent")) for key, row in by_key.items()}
    for key, row in by_key.items():
        # The records that delta channels are built from can't be stored again, so they stay while a run may need them.
        tip = bool(row.metadata.get("deltas")) and key not in followed
        if (tip or not at_once) and _is_leased(ends[key], since):
            staying.add(key)
    for key in list(staying):
        staying |= ancestry(by_key, key, set(by_key[key].metadata.get("deltas", ())))
    return set(by_key) - _with_their_parents(by_key, staying, since)


def _with_their_parents(by_key: Mapping[Key, Row], staying: set[Key], since: datetime) -> set[Key]:
    """Return ``staying`` without the namespaces of calls whose checkpoint leaves or has left."""
    oldest = min((by_key[key].number for key in staying if key[0] == ""), default=0)
    newest = {
        ns: max(map(by_key.__getitem__, keys), key=_number).number for ns, keys in _newest(by_key, 1).items()
    }

    def outlived(key: Key) -> bool:
        ns, row = key[0], by_key[key]
        if not _is_call(ns):
            return False
        if not row.metadata.get("exact"):  # of version 0.1, which did not say where it belongs
            return newest[ns] < oldest
        above = set(_above(row))
        return any(each not in staying if each in by_key else row.recorded_at <= since for each in above)

    return {key for key in staying if not outlived(key)}


def ancestry(by_key: Mapping[Key, Row], key: Key, channels: set[str]) -> set[Key]:
    """The checkpoints before ``key`` that its delta ``channels`` are built from."""
    found: set[Key] = set()
    while channels and (parent := by_key[key].metadata.get("parent")) is not None:
        key = (key[0], parent)
        if key not in by_key or key in found:
            break
        found.add(key)
        channels = channels & set(by_key[key].metadata.get("deltas", ()))
    return found


def is_crowded(rows: Sequence[Row]) -> bool:
    """Return whether a thread has so many records that checkpoints can't wait for the end of their lease."""
    return len(rows) >= CROWDED


def is_swept(rows: Sequence[Row], mine: int) -> bool:
    """Return whether another clean-up began before that of the record ``mine`` and may be under way."""
    since = _now(rows) - SWEEP_LIFE
    return any(row.name == SWEEP and row.number < mine and row.recorded_at > since for row in rows)


def _sound(rows: Sequence[Row]) -> list[Row]:
    """The records whose metadata are as the adapter writes them; others are passed over, and stay."""
    return [
        row
        for row in rows
        if row.name == SWEEP
        or (row.name == LEASED and len(texts(row.metadata.get("needs"))) > 0)
        or sound([row])
    ]


def _above(row: Row) -> list[Key]:
    """The checkpoints of graphs above that a checkpoint leaves with."""
    found = row.metadata.get("above")
    return [
        (ns, each) for ns, each in (found.items() if isinstance(found, dict) else ()) if isinstance(each, str)
    ]


def _is_call(ns: str) -> bool:
    """Return whether a namespace belongs to one call of a subgraph: LangGraph puts the task's id after a colon."""
    return ":" in ns


def _number(row: Row) -> int:
    return row.number


def _now(rows: Sequence[Row]) -> datetime:
    return max((row.recorded_at for row in rows), default=datetime.max)


def _newest(by_key: Mapping[Key, Row], keep: int) -> dict[str, list[Key]]:
    """The newest ``keep`` checkpoints of each namespace, newest first."""
    newest: dict[str, list[Key]] = {}
    for row in sorted(by_key.values(), key=_number, reverse=True):
        of_ns = newest.setdefault(row.metadata["ns"], [])
        if len(of_ns) < keep:
            of_ns.append(key_of(row))
    return newest


def _ends(rows: Sequence[Row]) -> dict[Key, datetime | None]:
    """When each checkpoint ceased to be the newest of its namespace; None for those that are.

    The last one of a call of a subgraph ends with the checkpoint that the call belongs to.
    """
    ends: dict[Key, datetime | None] = {}
    last: dict[str, Row] = {}
    for row in rows:
        if row.name != CHECKPOINT:
            continue
        before = last.get(row.metadata["ns"])
        if before is not None and key_of(before) != key_of(row):
            ends[key_of(before)] = row.recorded_at
        last[row.metadata["ns"]] = row
        ends[key_of(row)] = None
    for ns, row in last.items():
        above = [ends[each] for each in _above(row) if each in ends]
        if _is_call(ns) and above and (ended := [end for end in above if end is not None]):
            ends[key_of(row)] = max(row.recorded_at, *ended)
    return ends


def _is_leased(end: datetime | None, since: datetime) -> bool:
    return end is None or end > since


def _leases(digests: Sequence[str]) -> list[Record]:
    return [
        Record(LEASED, {}, {"needs": digests[start : start + _IN_ONE]})
        for start in range(0, len(digests), _IN_ONE)
    ]
