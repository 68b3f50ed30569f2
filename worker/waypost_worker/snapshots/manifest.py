"""The manifest: what a snapshot holds, at which positions, with the checksum of each file. Pure.

It is written last, so a snapshot without one is none. It carries a checksum of itself.
"""

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import orjson

from waypost_worker.snapshots.storage import SnapshotError

FILE_NAME: Final = "manifest.json"
FORMAT: Final = "waypost-snapshot"
VERSION: Final = 1
# In the order in which they are restored.
TABLES: Final = ("partitions", "sessions", "checkpoints", "recent_commands", "outbox", "rejected_commands")
_PATH: Final = re.compile(r"partition-\d{5,}/[a-z_]+-\d{6,}\.copy\.zst")
_JSON: Final = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS


@dataclass(frozen=True, slots=True)
class File:
    """A piece of a table's rows in PostgreSQL's binary COPY format, compressed with Zstandard.

    ``path`` is below the snapshot's name; ``size`` and ``sha256`` are of the file, ``raw_size`` of what is in it.
    """

    path: str
    table: str
    size: int
    raw_size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Part:
    """One partition: its position, as the row in ``partitions`` has it, and its rows.

    ``next_offset`` is the first command that is not applied; ``anchor`` the hash, in hex, of the one before it.
    ``emitted`` and ``results_offset`` are the results position. ``rows`` counts by table.
    """

    partition: int
    next_offset: int
    epoch: int
    emitted: int
    results_offset: int
    anchor: str | None
    rows: dict[str, int]
    files: list[File]


@dataclass(frozen=True, slots=True)
class AppliedMigration:
    """A migration of the database that the rows are from."""

    number: int
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of a snapshot but its rows. ``taken_at`` is Postgres's clock, RFC 3339.

    ``partitions`` is the partition count of the topics; ``columns`` are those of each table, in the rows' order.
    """

    name: str
    taken_at: str
    waypost: str
    postgres: int
    commands_topic: str
    results_topic: str
    partitions: int
    migrations: list[AppliedMigration]
    columns: dict[str, list[str]]
    parts: list[Part]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for part in self.parts for file in part.files)

    def rows(self, table: str) -> int:
        """Rows of a table in all partitions."""
        return sum(part.rows[table] for part in self.parts)

    def to_json(self) -> bytes:
        """The file's text."""
        fields = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return orjson.dumps({**fields, "sha256": _checksum(fields)}, option=_JSON) + b"\n"

    @classmethod
    def from_json(cls, text: bytes, name: str) -> Self:
        """Read the file of the snapshot ``name``.

        SnapshotError if it is no manifest, of a version that is not known, or not what was written.
        """
        try:
            fields = orjson.loads(text)
            kind, version, checksum = (fields.pop(key) for key in ("format", "version", "sha256"))
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise SnapshotError(
                f"the snapshot {name!r} has a manifest that can't be read ({error!r})"
            ) from None
        if kind != FORMAT or version != VERSION:
            raise SnapshotError(
                f"the snapshot {name!r} has the format {kind!r}, version {version}; this Waypost reads {FORMAT!r}, "
                f"version {VERSION}: use the version of Waypost that took it, or a newer one"
            )
        if _checksum({"format": kind, "version": version, **fields}) != checksum:
            raise SnapshotError(
                f"the manifest of the snapshot {name!r} has another checksum than when it was written: it was "
                "damaged or changed. Use another snapshot"
            )
        try:
            return cls(
                **{
                    **fields,
                    "migrations": [AppliedMigration(**each) for each in fields["migrations"]],
                    "parts": [_part(each) for each in fields["parts"]],
                }
            )
        except (TypeError, KeyError) as error:
            raise SnapshotError(f"the manifest of the snapshot {name!r} can't be read ({error!r})") from None


def _part(fields: dict[str, Any]) -> Part:
    files = [File(**each) for each in fields["files"]]
    for file in files:
        # Who wrote the manifest does not choose which files of this machine are read.
        if file.table not in TABLES or _PATH.fullmatch(file.path) is None:
            raise KeyError(file.path)
    return Part(**{**fields, "files": files})


def _checksum(fields: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(fields, option=_JSON)).hexdigest()
