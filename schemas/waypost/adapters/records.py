"""The contents of an adapter's session: records, and how one that is too large for a command is split into parts.

Pure; knows neither a framework nor how records travel.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from waypost.adapters.allowed_types import UnreadableValueError
from waypost.errors import InvalidCommandError, quoted
from waypost.model.limits import MAX_SESSION_ID, dump_object, text_problem
from waypost.publisher.calls import ENCRYPTED_PART_BYTES, ENCRYPTED_PART_COUNT
from waypost.publisher.stamps import new_id

#: #: Retention policy of the adapters' sessions, which never removes anything by itself: the largest cap, no
#: compression, no age. Adapters raise an error well below the cap, so that it never drops anything, even with many
#: concurrent processes.
POLICY: Final[dict[str, int | float | None]] = {
    "max_checkpoints": 10_000,
    "compress_after": 10_000,
    "keep_recent": 10_000,
    "max_age": None,
}
FULL: Final = 9_800
#: Records that a full session takes for cleaning it up.
SPARE: Final = 100
PART: Final = "part"
_WHOLE_BYTES: Final = 800 * 1024  # of JSON, below the 900 KB of a command
_PART_BYTES: Final = 600 * 1024  # 800 KB in base64
_IMPORT_BYTES: Final = 880_000
_IMPORT_COUNT: Final = 1_000
#: The same where data is encrypted, which takes a third more.
_ENCRYPTED_WHOLE_BYTES: Final = 600 * 1024
_ENCRYPTED_PART_BYTES: Final = 450 * 1024
_HASHED: Final = "sha256:"
_MAX_SEARCHED: Final = 1_000  # characters, of each of the few texts that a record is found by
_TAG: Final = 12  # characters that tell a record from all others
_PART_HASH: Final = 40  # hexadecimal digits
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class Record(NamedTuple):
    """Something to keep: its name, data and searchable metadata."""

    name: str
    data: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it was read. ``chosen``: asked for itself, not because another needs it."""

    number: int
    name: str
    raw: bytes
    metadata: dict[str, Any]
    recorded_at: datetime
    chosen: bool = False

    @property
    def data(self) -> dict[str, Any]:
        """The data, parsed again at each access."""
        data: dict[str, Any] = orjson.loads(self.raw)
        return data

    @property
    def batch(self) -> str | None:
        """The common key of this record's parts, None if it is whole."""
        found = self.metadata.get("batch")
        return found if isinstance(found, str) else None


class EncodedRecord(NamedTuple):
    """A record whose data is JSON already, which is made only once."""

    name: str
    raw: bytes
    metadata: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """The data, parsed again at each access."""
        data: dict[str, Any] = orjson.loads(self.raw)
        return data


@dataclass(frozen=True, slots=True)
class Divided:
    """A record as it is sent. ``parts`` are sent first, so a reader that sees ``main`` finds all of them.

    ``whole`` is the record itself, as it will be read.
    """

    whole: EncodedRecord
    main: EncodedRecord
    parts: list[EncodedRecord] = field(default_factory=list)


def divided(record: Record, *, encrypts: bool = False) -> Divided:
    """Return ``record`` as JSON, cut into parts if that exceeds 800 KB, or 600 KB if it will be encrypted."""
    raw = dump_object(record.data, "data")
    encoded = EncodedRecord(record.name, raw, record.metadata)
    if len(raw) <= (_ENCRYPTED_WHOLE_BYTES if encrypts else _WHOLE_BYTES):
        return Divided(encoded, encoded)
    batch = new_id()
    size = _ENCRYPTED_PART_BYTES if encrypts else _PART_BYTES
    parts = [
        EncodedRecord(
            PART,
            b'{"base64":"%b"}' % base64.b64encode(raw[start : start + size]),
            {"batch": batch, "part": index},
        )
        for index, start in enumerate(range(0, len(raw), size))
    ]
    metadata = {**record.metadata, "batch": batch, "parts": len(parts)}
    return Divided(encoded, EncodedRecord(record.name, b"{}", metadata), parts)


def whole(rows: Iterable[Row], parts: Iterable[Row]) -> list[Row]:
    """``rows`` with the data of their ``parts`` put together.

    A row whose parts are missing is left out: it is being deleted, and its own row was removed first. A row that does
    not say how many parts it has, and an invalid part, are left out as well, because no adapter wrote them.

    Raises:
        UnreadableValueError: Together, they are not a JSON object. Somebody else wrote parts of this record.
    """
    pieces: dict[str, dict[int, bytes]] = {}
    for part in parts:
        index, chunk = part.metadata.get("part"), _chunk(part)
        if part.batch is not None and type(index) is int and chunk is not None:
            # The first counts: those of the adapter came before whatever a stranger adds to them.
            pieces.setdefault(part.batch, {}).setdefault(index, chunk)
    found = []
    for row in rows:
        if row.batch is None:
            found.append(row)
            continue
        chunks, count = pieces.get(row.batch, {}), row.metadata.get("parts")
        if (
            type(count) is int
            and 0 <= count <= len(chunks)
            and all(index in chunks for index in range(count))
        ):
            raw = b"".join(chunks[index] for index in range(count))
            found.append(replace(row, raw=_checked_object(raw, row)))
    return found


def _chunk(part: Row) -> bytes | None:
    try:
        return base64.b64decode(part.data["base64"])
    except (KeyError, TypeError, ValueError):
        return None


def _checked_object(raw: bytes, row: Row) -> bytes:
    try:
        if isinstance(orjson.loads(raw), dict):
            return raw
    except ValueError:
        pass
    raise UnreadableValueError(
        f"The parts of record {row.number}, {quoted(row.name)}, are not a JSON object when put together: no adapter "
        "wrote them. Nothing was read. Delete the record to continue without it."
    )


def texts(value: Any) -> list[str]:
    """Return the strings of a list that was read; none if it is not a list."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def containing(metadata: Mapping[str, Any]) -> str:
    """Return ``metadata`` as the JSON that a statement searches for. A value that no metadata can contain, such as
    U+0000, finds nothing.
    """
    return orjson.dumps({key: _findable(each) for key, each in metadata.items()}).decode()


def _findable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _findable(each) for key, each in value.items()}
    return None if isinstance(value, str) and not storable(value) else value


def storable(text: str) -> bool:
    """Return whether metadata in Postgres can contain this: it accepts neither NUL nor half a character."""
    if text.isprintable():
        return True
    return "\0" not in text and text.encode(errors="replace").decode() == text


def require_searchable(what: str, text: str) -> None:
    """Check a text of a framework's that its records are found by.

    Raises:
        InvalidCommandError: It can't be searched for.
    """
    if "\0" in text:
        problem = "contains U+0000, which Postgres can't search for"
    elif len(text) > _MAX_SEARCHED:
        problem = f"has {len(text)} characters, at most {_MAX_SEARCHED} can be searched for"
    elif not text.isprintable() and _SURROGATE.search(text):
        problem = "contains a lone surrogate, which UTF-8 can't carry"
    else:
        return
    raise InvalidCommandError("invalid-body", f"{what} {problem}")


def import_item(name: str, data: bytes, metadata: Mapping[str, Any], timestamp: str) -> bytes:
    """One element of an import; its id says that it comes from elsewhere, so it gets the next number."""
    told = dump_object(dict(metadata), "metadata")
    head = orjson.dumps({"id": new_id(), "name": name, "timestamp": timestamp})
    return head[:-1] + b',"metadata":' + told + b',"data":' + data + b"}"


class Grouping:
    """Elements of an import, put into groups that fit into one command each, also once they are encrypted."""

    def __init__(self, *, encrypts: bool = False) -> None:
        self.group: list[bytes] = []
        self._bytes = 0
        self._most_bytes = ENCRYPTED_PART_BYTES if encrypts else _IMPORT_BYTES
        self._most = ENCRYPTED_PART_COUNT if encrypts else _IMPORT_COUNT

    def add(self, item: bytes) -> list[bytes]:
        """Add an element; the group that it no longer fitted into, or nothing."""
        full: list[bytes] = []
        if self.group and (self._bytes + len(item) > self._most_bytes or len(self.group) == self._most):
            full, self.group, self._bytes = self.group, [], 0
        self.group.append(item)
        self._bytes += len(item) + 1
        return full


def session_of(prefix: str, name: str) -> str:
    """Return the session id for a framework's own id: readable if it fits, otherwise its hash."""
    session_id = f"{prefix}{name}"
    if name.startswith(_HASHED) or text_problem(session_id, MAX_SESSION_ID) is not None:
        encoded = name.encode(errors="surrogatepass")
        return f"{prefix}{_HASHED}{hashlib.sha256(encoded).hexdigest()}"
    return session_id


def session_path(prefix: str, *names: str) -> str:
    """The session id for several of a framework's own ids: no two lists of them share one.

    Sessions whose first names are the same have ids that begin alike, so that they can be listed.
    """
    longest = (MAX_SESSION_ID - len(prefix) - len(names) + 1) // len(names)
    return prefix + "/".join(_path_part(name, longest) for name in names)


def _path_part(name: str, longest: int) -> str:
    if "/" not in name and not name.startswith(_HASHED) and text_problem(name or " ", longest) is None:
        return name
    return _HASHED + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_PART_HASH]


def new_tag() -> str:
    """Return a text for the member ``tag`` of a record's metadata, by which :func:`with_own` knows it."""
    return new_id()[-_TAG:]


def with_own(stored: Iterable[Row], own: Iterable[Row]) -> list[Row]:
    """Return stored records, oldest first, and those that this process added and Postgres may lack.

    Postgres may have received some of these in the meantime, and others' records after them.
    """
    rows = list(stored)
    known = {tag for row in rows if isinstance(tag := row.metadata.get("tag"), str)}
    return [*rows, *(row for row in own if row.metadata["tag"] not in known)]


def is_hashed(prefix: str, session_id: str) -> bool:
    """Return whether the framework's own id can't be read from ``session_id``."""
    return session_id.startswith(prefix + _HASHED)


def prefix_end(prefix: str) -> str:
    """The first session id after all that begin with ``prefix``."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def gone_with_parts(rows: Sequence[Row], gone: set[int]) -> list[int]:
    """``gone`` and the parts that belong to it, each record before its parts."""
    batches = {row.batch for row in rows if row.number in gone and row.name != PART}
    parts = [row.number for row in rows if row.name == PART and row.batch in batches]
    return [*sorted(gone), *(number for number in parts if number not in gone)]
