"""Batches as the parameters of ``sql/commit.sql`` and ``sql/commit_group.sql``.

They are columns of values, netted so that no row is touched twice. Knows the order of these files' parameters, and
nothing about connections.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

import orjson

from waypost.model.authority import Authority
from waypost.model.index import SeenCommand
from waypost.model.retention import RetentionPolicy
from waypost.wire.signing import decode_key, encode_key
from waypost_worker.partition.kept import headers_json
from waypost_worker.partition.ports import Changes, Commit, ForeignRecord, RejectedRow, RejectedWindow

_NOTHING: Final = "{}"
_NONE_OF: Final[tuple[list[Any], ...]] = ([], [], [], [], [], [], [], [], [], [], [])
_NO_METADATA: Final = b"{}"


class PartitionCommit(NamedTuple):
    """A partition's batch, and what its owner knows of the partition's row.

    ``place`` is the row's ctid, None if it is not known. ``emitted`` is stored there, and ``producer`` is recorded: id
    and epoch.
    """

    partition: int
    place: tuple[int, int] | None
    emitted: int
    producer: tuple[int | None, int | None]
    commit: Commit


def commit_parameters(commit: Commit) -> list[Any]:
    """All parameters from the third on, the epoch: the first two say which row of ``partitions``."""
    changes = commit.changes
    commands = changes.partition_commands
    rejected = _rejected(changes.kept_rejections())
    return [
        commit.epoch,
        commit.expected_offset,
        commit.next_offset,
        commit.anchor,
        commit.emitted,
        commit.results_offset,
        *commit.outbox,
        policy_json(changes.default_policy),
        None if commands is None else orjson.dumps(commands),
        *_keys(changes.drops),
        *_checkpoints(changes),
        *_pins(changes),
        *_sessions(changes),
        *_keys(changes.forgotten.items()),
        *_remembered(changes),
        *rejected[:9],
        _array([changes.begun.get(name, last) for name, (_, last) in changes.sessions.items()]),
        *rejected[9:],
        changes.rejected_below,
        None if changes.rejected_window is None else orjson.dumps(changes.rejected_window._asdict()),
        commit.by_owner,
        None if changes.authority is None else authority_json(changes.authority),
        _erased_at(changes),
        *_keys(changes.erased.items()),
    ]


def group_parameters(parts: Sequence[PartitionCommit]) -> list[Any]:
    """Return the parameters for batches of several partitions, which come in ascending order.

    ValueError if two of them have a session in common, or are of one partition: a statement changes a row only once.
    """
    commits = [part.commit for part in parts]
    changes, homes = _merged(parts)
    outbox = [commit.outbox for commit in commits]
    rejected_below = [commit.changes.rejected_below for commit in commits]
    settings = [_settings(commit.changes) for commit in commits]
    rejected = [(part.partition, row) for part in parts for row in part.commit.changes.kept_rejections()]

    def homes_of(session_ids: Iterable[str]) -> str:
        return _array([homes[session_id] for session_id in session_ids])

    return [
        _array([part.partition for part in parts]),
        places_literal(part.place for part in parts),
        _array([commit.epoch for commit in commits]),
        _array([part.producer[0] for part in parts]),
        _array([part.producer[1] for part in parts]),
        _array([commit.expected_offset for commit in commits]),
        _array([commit.next_offset for commit in commits]),
        _array([None if commit.anchor is None else commit.anchor.hex() for commit in commits]),
        _array([commit.emitted for commit in commits]),
        _array([commit.results_offset for commit in commits]),
        _array([commit.by_owner for commit in commits]),
        *(list(column) if any(column) else [] for column in zip(*settings, strict=True)),
        _array([part.emitted for part in parts]),
        _array(rejected_below) if any(rejected_below) else _NOTHING,
        _array([one.first_offset for one in outbox]),
        _array([one.last_offset for one in outbox]),
        *_slices([one.payload for one in outbox]),
        homes_of(key[0] for key in changes.drops),
        *_keys(changes.drops),
        homes_of(key[0] for key in changes.puts),
        *_checkpoints(changes),
        homes_of(key[0] for key in _kept_pins(changes)),
        *_pins(changes),
        homes_of(changes.sessions),
        *_sessions(changes),
        _array([changes.begun.get(name, last) for name, (_, last) in changes.sessions.items()]),
        homes_of(changes.forgotten),
        *_keys(changes.forgotten.items()),
        homes_of(session_id for session_id, _ in _kept_commands(changes)),
        *_remembered(changes),
        _array([partition for partition, _ in rejected]),
        *_rejected([row for _, row in rejected]),
        _erased_at(changes),
        homes_of(changes.erased),
        *_keys(changes.erased.items()),
    ]


def places_literal(places: Iterable[tuple[int, int] | None]) -> str:
    """Return where rows are as an array literal: asyncpg would ask Postgres about the type of the array first."""
    return _array([None if place is None else f"({place[0]},{place[1]})" for place in places])


def _merged(parts: Sequence[PartitionCommit]) -> tuple[Changes, dict[str, int]]:
    """Return what all batches change in sessions, and the partition of each session."""
    merged = Changes()
    homes: dict[str, int] = {}
    if len({part.partition for part in parts}) < len(parts):
        raise ValueError("two batches are of one partition")
    for part in parts:
        one = part.commit.changes
        keyed = (one.drops, one.puts, one.pins)
        named = {*one.sessions, *one.forgotten, *one.erased, *(name for name, _ in one.remembered)}
        named.update(key[0] for keys in keyed for key in keys)
        if not homes.keys().isdisjoint(named):
            raise ValueError(f"partition {part.partition} has a session of another partition")
        homes.update(dict.fromkeys(named, part.partition))
        merged.drops |= one.drops
        merged.puts |= one.puts
        merged.pins |= one.pins
        merged.sessions |= one.sessions
        merged.begun |= one.begun
        merged.forgotten |= one.forgotten
        merged.erased |= one.erased
        merged.remembered += one.remembered
    return merged, homes


def _settings(changes: Changes) -> tuple[bytes | None, ...]:
    """Return what changes for a whole partition; None for what stays."""
    commands, window = changes.partition_commands, changes.rejected_window
    return (
        policy_json(changes.default_policy),
        None if commands is None else orjson.dumps(commands),
        None if window is None else orjson.dumps(window._asdict()),
        None if changes.authority is None else authority_json(changes.authority),
    )


def _array(column: Sequence[str | int | bool | None]) -> str:
    """A Postgres array literal. It is a JSON list in braces, until a string has to be escaped."""
    if not column:
        return _NOTHING
    listed = orjson.dumps(column)[1:-1]
    if b"\\" in listed:
        listed = b",".join([_escaped(one) if isinstance(one, str) else orjson.dumps(one) for one in column])
    return f"{{{listed.decode()}}}"


def _escaped(text: str) -> bytes:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.encode()


def policy_of(raw: bytes | None) -> RetentionPolicy | None:
    """Return a stored policy; None if there is none."""
    return None if raw is None else RetentionPolicy(**orjson.loads(raw))


def window_of(raw: bytes) -> RejectedWindow:
    """Return the window of rejected commands as it was stored."""
    fields = orjson.loads(raw)
    parts = tuple((first, count) for first, count in fields["parts"])
    return RejectedWindow(fields["since"], parts, fields["newest_bytes"])


def foreign_of(raw: bytes) -> list[ForeignRecord]:
    """Return the accepted records of the results topic as they were stored."""
    return [ForeignRecord(offset, bytes.fromhex(digest)) for offset, digest in orjson.loads(raw)]


def owners_of(producer_id: int | None, former: bytes | str | None) -> frozenset[int] | None:
    """Return the producer ids of the owners that may have written what lies behind the stored position, if known."""
    return None if producer_id is None or former is None else frozenset((producer_id, *orjson.loads(former)))


def foreign_json(accepted: Iterable[ForeignRecord]) -> bytes:
    """Return accepted records of the results topic as they are stored."""
    return orjson.dumps([(offset, digest.hex()) for offset, digest in accepted])


def policy_json(policy: RetentionPolicy | None) -> bytes | None:
    """A policy as it is stored."""
    if policy is None:
        return None
    fields = {
        "max_checkpoints": policy.max_checkpoints,
        "compress_after": policy.compress_after,
        "keep_recent": policy.keep_recent,
        "max_age": policy.max_age,
    }
    if policy.encrypted:  # left out otherwise, as rows were before there was encryption
        fields["encrypted"] = True
    return orjson.dumps(fields)


def authority_of(raw: bytes | None) -> Authority:
    """An authority as it was stored; none where there is nothing."""
    if raw is None:
        return Authority()
    stored = orjson.loads(raw)
    key = stored["key"]
    skipped = tuple(stored.get("skipped", ()))
    return Authority(None if key is None else decode_key(key), stored["signed_at"], skipped)


def authority_json(authority: Authority) -> bytes:
    """An authority as it is stored."""
    key = None if authority.key is None else encode_key(authority.key)
    skipped = {"skipped": authority.skipped} if authority.skipped else {}
    return orjson.dumps({"key": key, "signed_at": authority.signed_at, **skipped})


def _keys(keys: Any) -> tuple[str, str]:
    return _array([key[0] for key in keys]), _array([key[1] for key in keys])


def _checkpoints(changes: Changes) -> tuple[Any, ...]:
    rows = changes.puts.values()
    entries = [row.entry for row in rows]
    pinned = [entry.pinned for entry in entries]
    if changes.pins:
        pinned = [changes.pins.get(key, own) for key, own in zip(changes.puts, pinned, strict=True)]
    metadata = [row.metadata for row in rows]
    imported_ids = [entry.imported_id for entry in entries]
    return (
        _array([row.session_id for row in rows]),
        _array([entry.number for entry in entries]),
        _array(imported_ids) if any(imported_ids) else _NOTHING,
        _array([entry.name for entry in entries]),
        _array([entry.taken_at for entry in entries]),
        _array([entry.recorded_at for entry in entries]),
        *_slices([row.data for row in rows]),
        [] if metadata.count(_NO_METADATA) == len(metadata) else metadata,
        _array(pinned) if any(pinned) else _NOTHING,
        _array([entry.command_id for entry in entries]),
        _array([entry.position for entry in entries]),
    )


def _slices(pieces: Sequence[bytes]) -> tuple[bytes, str, str]:
    """Return all bytes in a row, where each piece begins in them, counted from 1, and how long it is."""
    sizes = [len(piece) for piece in pieces]
    starts = _array(list(accumulate(sizes[:-1], initial=1))) if sizes else _NOTHING
    return b"".join(pieces), starts, _array(sizes)


def _pins(changes: Changes) -> tuple[str, ...]:
    pins = _kept_pins(changes)
    return (*_keys(pins), _array(list(pins.values())))


def _kept_pins(changes: Changes) -> dict[tuple[str, int], bool]:
    # Pins of rows that are put travel with the row; those of rows that go are of no use.
    return {
        key: pinned
        for key, pinned in changes.pins.items()
        if key not in changes.puts and key not in changes.drops
    }


def _sessions(changes: Changes) -> tuple[Any, ...]:
    touched = [session for session, _ in changes.sessions.values()]
    policies = [policy_json(session.policy) for session in touched]
    return (
        _array([session.session_id for session in touched]),
        _array([session.counter for session in touched]),
        policies if any(policies) else [],
        _array([len(session) for session in touched]),
        _array([recorded_at for _, recorded_at in changes.sessions.values()]),
    )


def _erased_at(changes: Changes) -> str:
    times = [session.erased_at for session, _ in changes.sessions.values()]
    return _NOTHING if times.count(None) == len(times) else _array(times)


def _remembered(changes: Changes) -> tuple[str, ...]:
    kept = _kept_commands(changes)
    return (
        _array([session_id for session_id, _ in kept]),
        _array([one.position for _, one in kept]),
        _array([one.command_id for _, one in kept]),
        _array([one.number for _, one in kept]),
    )


def _kept_commands(changes: Changes) -> list[tuple[str, SeenCommand]]:
    """Return what is still remembered when the batch is over.

    Entries that one batch adds and forgets are never written. Positions alone don't identify them: a checkpoint that is
    removed after the forgetting brings back a command id that is older than all that were forgotten.
    """
    if not changes.remembered:
        return []
    forgetful: dict[str, set[SeenCommand]] = {
        session_id: set(changes.sessions[session_id][0].recent) for session_id in changes.forgotten
    }
    return [
        (session_id, one)
        for session_id, one in changes.remembered
        if session_id not in forgetful or one in forgetful[session_id]
    ]


def _rejected(rows: list[RejectedRow]) -> tuple[list[Any], ...]:
    if not rows:
        return _NONE_OF
    return (
        [row.offset for row in rows],
        [row.session_id for row in rows],
        [row.command_id for row in rows],
        [row.code for row in rows],
        [_storable(row.message) for row in rows],
        [row.key for row in rows],
        [row.value for row in rows],
        [headers_json(row) for row in rows],
        [row.recorded_at for row in rows],
        [row.value_bytes for row in rows],
        [row.headers_bytes for row in rows],
    )


def _storable(message: str) -> str:
    # A message may quote what was wrong with a command, and Postgres takes no U+0000 in text.
    return message.replace("\0", "\ufffd").encode(errors="replace").decode()
