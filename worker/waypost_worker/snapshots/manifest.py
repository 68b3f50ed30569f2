"""The manifest: the contents and positions of a snapshot, with the checksum of each file. Pure.

It is written last, so a snapshot without one is incomplete. It contains its own checksum, which shows damage, and a
signature (HMAC-SHA256) if a key is set, which shows that nobody without the key wrote or changed it. Its sizes and
places are bounded, because anyone who can write to the storage can write a manifest.
"""

import hashlib
import hmac
import re
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from waypost.errors import quoted
from waypost_worker.snapshots.storage import SnapshotError

FILE_NAME: Final = "manifest.json"
FORMAT: Final = "waypost-snapshot"
VERSION: Final = 1
# In the order in which they are restored.
TABLES: Final = ("partitions", "sessions", "checkpoints", "recent_commands", "outbox", "rejected_commands")
PIECE_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of rows in a file, before compression."""
MANIFEST_BYTES: Final = 32 * 1024 * 1024
"""The most bytes of a manifest: enough for the files of 2 TB of rows."""
_MOST_PARTITIONS: Final = 100_000
_MOST_COLUMNS: Final = 100
_LONGEST_TEXT: Final = 300
_COLUMN: Final = re.compile(r"[a-z_]{1,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ANCHOR: Final = re.compile(r"([0-9a-f]{2}){1,64}")
_JSON: Final = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS


class Signing(NamedTuple):
    """The key that signs manifests, and whether to read one that is not signed with it anyway."""

    key: bytes | None = None
    allow_unsigned: bool = False


NO_KEY: Final = Signing()


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

    ``next_offset`` is the first command that is not applied; ``anchor`` is the hash, in hex, of the previous one.
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
    signed: bool = field(default=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for part in self.parts for file in part.files)

    def rows(self, table: str) -> int:
        """Rows of a table in all partitions."""
        return sum(part.rows[table] for part in self.parts)

    def to_json(self, signing: Signing = NO_KEY) -> bytes:
        """The file's text, signed if there is a key."""
        fields = {"format": FORMAT, "version": VERSION, **asdict(self)}
        del fields["signed"]
        signature = {} if signing.key is None else {"hmac": _signature(fields, signing.key)}
        return orjson.dumps({**fields, "sha256": _checksum(fields), **signature}, option=_JSON) + b"\n"

    @classmethod
    def from_json(cls, text: bytes, name: str, signing: Signing = NO_KEY) -> "Manifest":
        """Read the file of the snapshot ``name``.

        Raise SnapshotError if it is not a manifest, has an unknown version, was changed, or is not signed with the key,
        if there is one.
        """
        try:
            fields = orjson.loads(text)
            kind, version, checksum = (fields.pop(key) for key in ("format", "version", "sha256"))
            signature = fields.pop("hmac", None)
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise SnapshotError(
                f"the snapshot {name!r} has a manifest that can't be read ({error!r})"
            ) from None
        if kind != FORMAT or version != VERSION:
            raise SnapshotError(
                f"the snapshot {name!r} has the format {quoted(kind)}, version {quoted(version)}; this "
                f"Waypost reads {FORMAT!r}, version {VERSION}: use the version of Waypost that took it, or a newer one"
            )
        whole = {"format": kind, "version": version, **fields}
        if _checksum(whole) != checksum:
            raise SnapshotError(
                f"the manifest of the snapshot {name!r} has another checksum than when it was written: it was "
                "damaged or changed. Use another snapshot"
            )
        _check_signature(whole, signature, name, signing)
        try:
            manifest = _manifest(fields, signature is not None)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise SnapshotError(
                f"the manifest of the snapshot {name!r} can't be read ({quoted(error)}). No part of the snapshot was "
                "read: use another one"
            ) from None
        if manifest.name != name:
            raise SnapshotError(
                f"the manifest of the snapshot {name!r} belongs to another one, {quoted(manifest.name)}. No part of "
                "the snapshot was read: use another one"
            )
        return manifest


def _manifest(fields: dict[str, Any], signed: bool) -> Manifest:
    """The manifest of parsed JSON. Raise an error of Python's if anything in it is not as it must be."""
    _require(isinstance(fields["migrations"], list) and bool(fields["migrations"]), "migrations")
    migrations = [AppliedMigration(**each) for each in fields["migrations"]]
    parts = [Part(**{**each, "files": [File(**file) for file in each["files"]]}) for each in fields["parts"]]
    manifest = Manifest(**{**fields, "migrations": migrations, "parts": parts}, signed=signed)
    _require(0 < _number(manifest.partitions) <= _MOST_PARTITIONS, "partitions")
    _require(datetime.fromisoformat(_text(manifest.taken_at)).tzinfo is not None, "taken_at")
    _number(manifest.postgres)
    for text in (manifest.name, manifest.waypost, manifest.commands_topic, manifest.results_topic):
        _text(text)
    for number, migration in enumerate(migrations, 1):
        _require(_number(migration.number) == number, "migrations")
        _text(migration.name)
        _text(migration.sha256)
    _require(set(manifest.columns) == set(TABLES), "columns")
    for names in manifest.columns.values():
        _require(0 < len(names) == len(set(names)) <= _MOST_COLUMNS, "columns")
        _require(all(_COLUMN.fullmatch(name) for name in names), "columns")
    numbers = [_number(part.partition) for part in parts]
    _require(numbers == sorted(set(numbers)), "parts")
    _require(all(number < manifest.partitions for number in numbers), "parts")
    for part in parts:
        _check_part(part)
    return manifest


def _check_part(part: Part) -> None:
    _number(part.next_offset)
    for number in (part.epoch, part.emitted, part.results_offset):
        _number(number, -1)
    _require(part.anchor is None or _ANCHOR.fullmatch(part.anchor) is not None, "anchor")
    _require(set(part.rows) == set(TABLES), "rows")
    for count in part.rows.values():
        _number(count)
    found: dict[str, int] = {}
    for file in part.files:
        # The author of a manifest does not choose which files of this machine are read, or how much of them.
        _require(file.table in TABLES, "table")
        found[file.table] = number = found.get(file.table, 0) + 1
        _require(file.path == path_of(part.partition, file.table, number), "path")
        _require(0 < _number(file.raw_size) <= PIECE_BYTES, "raw_size")
        _require(0 < _number(file.size) <= most_packed(file.raw_size), "size")
        _require(_SHA256.fullmatch(file.sha256) is not None, "sha256")


def path_of(partition: int, table: str, number: int) -> str:
    """Return the path of the ``number``-th piece of a table's rows, below the snapshot's name; numbers start at 1."""
    return f"partition-{partition:05}/{table}-{number:06}.copy.zst"


def most_packed(raw_size: int) -> int:
    """Return the largest size that compression can produce from this many bytes."""
    return raw_size + raw_size // 128 + 4096


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what!r} is not as Waypost writes it")


def _number(value: Any, least: int = 0) -> int:
    _require(type(value) is int and least <= value < 2**63, "a number")
    return int(value)


def _text(value: Any) -> str:
    _require(isinstance(value, str) and len(value) <= _LONGEST_TEXT, "a text")
    return str(value)


def _check_signature(whole: dict[str, Any], signature: object, name: str, signing: Signing) -> None:
    if signing.key is None or signing.allow_unsigned:
        return
    if signature is None:
        raise SnapshotError(
            f"the snapshot {name!r} is not signed, and a key is set. No part of it was read: use one that was taken "
            "with the key, or pass --allow-unsigned if you trust everyone who can write to the storage"
        )
    if not isinstance(signature, str) or not hmac.compare_digest(
        signature.encode(errors="replace"), _signature(whole, signing.key).encode()
    ):
        raise SnapshotError(
            f"the snapshot {name!r} is not signed with this key: it was changed, or taken with another one. No part "
            "of it was read: use another one, or the key that it was taken with (WAYPOST_SNAPSHOTS_KEY_FILE)"
        )


def _signature(fields: dict[str, Any], key: bytes) -> str:
    return hmac.new(key, orjson.dumps(fields, option=_JSON), hashlib.sha256).hexdigest()


def _checksum(fields: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(fields, option=_JSON)).hexdigest()
