"""Rows of Postgres compared with a fold of the log, one by one. Pure."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from waypost.model.index import Entry
from waypost.model.times import format_micros
from waypost_worker.partition.kept import kept
from waypost_worker.partition.ports import RefusedError, RejectedRow
from waypost_worker.recovery.memory_fold import Key, MemoryFold, content_digest, rejected_digest
from waypost_worker.recovery.verify.rows import (
    StoredCheckpoint,
    StoredCommand,
    StoredPartition,
    StoredSession,
)

_LOWEST: Final = -(2**63)
_TIMES = frozenset(("taken_at", "recorded_at", "first_recorded_at", "last_recorded_at", "erased_at"))


class Difference(NamedTuple):
    """One row that is not what the log says. ``text`` is for a person; ``position`` is the offset of the command
    that made a checkpoint whose content differs.
    """

    table: str
    key: str
    text: str
    position: int | None = None
    stored: StoredCheckpoint | None = None


@dataclass(slots=True)
class Tally:
    """Rows looked at in each table, a hash over all of them in any order, and the differences found.

    Of these only the first ``limit`` are kept, the rest are counted.
    """

    limit: int
    rows: dict[str, int] = field(default_factory=dict)
    found: list[Difference] = field(default_factory=list)
    count: int = 0
    purged: int = 0
    _sum: int = 0

    def saw(self, table: str, row: tuple[Any, ...]) -> None:
        """Count a row in, and add its hash."""
        self.rows[table] = self.rows.get(table, 0) + 1
        hashed = hashlib.blake2b(table.encode() + repr(tuple(row)).encode(), digest_size=16).digest()
        self._sum = (self._sum + int.from_bytes(hashed)) % 2**128

    def differs(self, difference: Difference) -> None:
        """Note a difference."""
        self.count += 1
        if len(self.found) < self.limit:
            self.found.append(difference)

    @property
    def fingerprint(self) -> str:
        """Equal for equal sets of rows."""
        return f"{self._sum:032x}"


class Comparator:
    """Takes the rows of one partition, each once, in any order; ``finish`` reports what is missing."""

    def __init__(self, fold: MemoryFold, tally: Tally, strict: bool, rejected_below: int) -> None:
        """``strict`` counts rejected commands that are not kept, though an operator may have purged them. Those below
        ``rejected_below`` made room for newer ones and must not be there.
        """
        self._fold = fold
        self._tally = tally
        self._strict = strict
        self._sessions = set(fold.times)
        self._checkpoints: set[Key] = set(fold.contents)
        self._commands = {
            (session_id, one.position): one
            for session_id in fold.times
            for one in fold.sessions[session_id].recent
        }
        self._rejected = {
            offset for offset, kept in fold.rejected.items() if not fold.was_erased(offset, kept[3])
        }
        # If nothing was dropped, rows of former topics, whose offsets are negative, stay as well.
        self._rejected_below = rejected_below or _LOWEST

    def partition(self, row: StoredPartition) -> None:
        """Hold the partition's own row against the fold."""
        fold = self._fold
        self._compare(
            "partitions",
            str(fold.partition),
            (
                ("partitions", row.partitions, fold.partitions),
                ("next_offset", row.next_offset, fold.next_offset),
                ("anchor", row.anchor, fold.anchor),
                ("default_policy", row.default_policy, fold.state.policy),
                ("default_commands", row.default_commands, fold.state.recent),
                ("authority", row.authority, fold.state.authority),
                *(() if fold.window is None else [("rejected_window", row.rejected_window, fold.window)]),
            ),
        )

    def session(self, row: StoredSession) -> None:
        """Hold a session against the fold."""
        self._tally.saw("sessions", row)
        if row.session_id not in self._sessions:
            self._extra("sessions", row.session_id, "no accepted command of the log is of this session")
            return
        self._sessions.discard(row.session_id)
        session = self._fold.sessions[row.session_id]
        first, last = self._fold.times[row.session_id]
        self._compare(
            "sessions",
            row.session_id,
            (
                ("counter", row.counter, session.counter),
                ("policy", row.policy, session.policy),
                ("checkpoints", row.checkpoints, len(session)),
                ("first_recorded_at", row.first_recorded_at, first),
                ("last_recorded_at", row.last_recorded_at, last),
                ("erased_at", row.erased_at, session.erased_at),
            ),
        )

    def checkpoint(self, row: StoredCheckpoint) -> None:
        """Hold a checkpoint against the fold, its data by hash."""
        self._check_adopted(row.position)
        self._tally.saw("checkpoints", row)
        key, name = (row.session_id, row.number), f"{row.session_id}:{row.number}"
        if key not in self._checkpoints:
            self._extra("checkpoints", name, "the log never made it, or removed it")
            return
        self._checkpoints.discard(key)
        entry = self._fold.sessions[row.session_id].entries[row.number]
        if self._compare("checkpoints", name, _entry_fields(row, entry)):
            return
        if content_digest(row.data, row.metadata) != self._fold.contents[key]:
            text = "data or metadata is not what the log gives"
            self._tally.differs(Difference("checkpoints", name, text, entry.position, row))

    def command(self, row: StoredCommand) -> None:
        """Hold a remembered command id against the fold."""
        self._check_adopted(row.position)
        self._tally.saw("recent_commands", row)
        key, name = (row.session_id, row.position), f"{row.session_id} at {row.position}"
        expected = self._commands.pop(key, None)
        if expected is None:
            self._extra("recent_commands", name, "the log does not remember such a command")
            return
        self._compare(
            "recent_commands",
            name,
            (
                ("command_id", row.command_id, expected.command_id),
                ("number", row.number, expected.number),
            ),
        )

    def rejected(self, row: RejectedRow) -> None:
        """Hold a kept rejected command against the fold."""
        row = kept(row)  # version 0.1 kept it whole, however large
        self._tally.saw("rejected_commands", row[:4] + row[5:])  # the message's wording may change
        name = f"{self._fold.partition}/{row.offset}"
        if row.offset not in self._rejected:
            why = "the log refuses no command there"
            if row.offset in self._fold.rejected:
                why = "its session was erased later"
            self._extra("rejected_commands", name, why)
            return
        self._rejected.discard(row.offset)
        if row.offset < self._rejected_below:
            self._extra("rejected_commands", name, "it should have made room for newer ones")
            return
        code, digest, *_ = self._fold.rejected[row.offset]
        if self._compare("rejected_commands", name, (("code", row.code, code),)):
            return
        if rejected_digest(row) != digest:
            text = "key, headers, value, ids or time are not those of the record in the log"
            self._tally.differs(Difference("rejected_commands", name, text))

    def finish(self) -> None:
        """Tell what the fold has and no row showed."""
        for session_id in sorted(self._sessions):
            self._missing("sessions", session_id)
        for session_id, number in sorted(self._checkpoints):
            entry = self._fold.sessions[session_id].entries[number]
            self._missing(
                "checkpoints", f"{session_id}:{number}", f", made by the command at {entry.position}"
            )
        for session_id, position in sorted(self._commands):
            self._missing("recent_commands", f"{session_id} at {position}")
        if not self._strict:
            self._tally.purged += len(self._rejected)
            return
        for offset in sorted(self._rejected):
            if offset < self._rejected_below:
                self._tally.purged += 1
                continue
            self._missing("rejected_commands", f"{self._fold.partition}/{offset}")

    def _compare(self, table: str, key: str, fields: Iterable[tuple[str, Any, Any]]) -> bool:
        """Return whether a field differs. The first one that does is noted."""
        for name, stored, expected in fields:
            if stored != expected:
                text = f"{name} is {_shown(name, stored)}, the log says {_shown(name, expected)}"
                self._tally.differs(Difference(table, key, text))
                return True
        return False

    def _check_adopted(self, position: int) -> None:
        if position < 0 and self._fold.base is None:
            raise RefusedError(
                "this database began under other topics ('waypost topics adopt'), so this log does not "
                "contain its beginning. Nothing was compared; name a snapshot that was taken since, with "
                "--from-snapshot"
            )

    def _extra(self, table: str, key: str, why: str) -> None:
        self._tally.differs(Difference(table, key, f"the row is in Postgres and should not be: {why}"))

    def _missing(self, table: str, key: str, about: str = "") -> None:
        self._tally.differs(Difference(table, key, f"the row is missing in Postgres{about}"))


def _entry_fields(row: StoredCheckpoint, entry: Entry) -> Iterable[tuple[str, Any, Any]]:
    return (
        ("name", row.name, entry.name),
        ("taken_at", row.taken_at, entry.taken_at),
        ("recorded_at", row.recorded_at, entry.recorded_at),
        ("pinned", row.pinned, entry.pinned),
        ("imported_id", row.imported_id, entry.imported_id),
        ("command_id", row.command_id, entry.command_id),
        ("position", row.position, entry.position),
    )


def _shown(name: str, value: Any) -> str:
    if name in _TIMES and value is not None:
        return format_micros(value)
    return value.hex() if isinstance(value, bytes) else repr(value)
