"""A checkpoint as people and programs see it, its id, and the summary of many. Pure; no I/O."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self, TypedDict

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.limits import canonical_metadata, check_json, dump_object
from waypost.model.times import format_micros, from_micros, parse_micros, to_micros

_SHOWN_BYTES: Final = 60


class CheckpointDict(TypedDict):
    """Checkpoint in the interchange format, with its five keys."""

    id: str
    name: str
    timestamp: str
    data: dict[str, Any]
    metadata: dict[str, Any]


class Summary(TypedDict):
    """Summary of a session's checkpoints. Times are RFC 3339 texts, the duration is in seconds."""

    total_count: int
    unique_names: int
    names: dict[str, int]
    first_checkpoint: CheckpointDict | None
    last_checkpoint: CheckpointDict | None
    duration_seconds: float


def _abbreviated(raw: bytes) -> str:
    if len(raw) <= _SHOWN_BYTES:
        return raw.decode()
    return f"{raw[:_SHOWN_BYTES].decode(errors='ignore')}… ({len(raw)} bytes)"


def checkpoint_id(session_id: str, number: int) -> str:
    """``{session_id}:{number}``."""
    return f"{session_id}:{number}"


def own_number(session_id: str, identifier: str) -> int | None:
    """The number in an id of this session, or None where the id is not of this session's form.

    Only the canonical form counts: ``s:07`` and ``s:+7`` are foreign ids, because ``s`` never creates them.
    """
    prefix, colon, digits = identifier.rpartition(":")
    if not colon or prefix != session_id or not (digits.isascii() and digits.isdigit()):
        return None
    if digits.startswith("0") or len(digits) > 18:
        return None
    return int(digits)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Record of what an agent knew at one moment, under a name.

    ``raw_data`` is the JSON of the data, byte for byte as the agent sent it; ``raw_metadata`` is compact JSON with
    sorted keys. ``timestamp`` is the agent's time, ``recorded_at`` the broker's, both in UTC. ``imported_id`` is the id
    that an imported checkpoint had where it came from.
    """

    id: str
    name: str
    timestamp: datetime
    recorded_at: datetime
    raw_data: bytes
    raw_metadata: bytes = b"{}"
    pinned: bool = False
    imported_id: str | None = None

    def __repr__(self) -> str:
        pinned = ", pinned" if self.pinned else ""
        moment = self.timestamp.isoformat()
        return f"<Checkpoint {self.id!r} {self.name!r} of {moment}{pinned}: {_abbreviated(self.raw_data)}>"

    @property
    def data(self) -> dict[str, Any]:
        """Data, parsed at each access, so that changing it never changes the checkpoint."""
        data: dict[str, Any] = orjson.loads(self.raw_data)
        return data

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata, parsed at each access."""
        metadata: dict[str, Any] = orjson.loads(self.raw_metadata)
        return metadata

    @property
    def number(self) -> int:
        """Number within the session, from 1."""
        return int(self.id.rpartition(":")[2])

    @property
    def session_id(self) -> str:
        """Id of the session that it belongs to."""
        return self.id.rpartition(":")[0]

    def to_dict(self) -> CheckpointDict:
        """Return the interchange form: id, name, timestamp (ISO 8601, UTC), data and metadata."""
        return {
            "id": self.id,
            "name": self.name,
            "timestamp": format_micros(to_micros(self.timestamp)),
            "data": self.data,
            "metadata": self.metadata,
        }

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Self:
        """Read the interchange form, in which ``metadata`` is optional. ``recorded_at`` becomes the timestamp.

        Raises:
            InvalidCommandError: A key is missing or wrong; the message names it.
        """
        if not isinstance(mapping, Mapping):
            raise InvalidCommandError(
                "invalid-body", f"a checkpoint is a dict, not a {type(mapping).__name__}"
            )
        missing = [key for key in ("id", "name", "timestamp", "data") if key not in mapping]
        if missing:
            raise InvalidCommandError("invalid-body", f"a checkpoint needs the key {missing[0]!r}")
        for key in ("id", "name", "timestamp"):
            if not isinstance(mapping[key], str):
                raise InvalidCommandError("invalid-body", f"{key} must be a string")
        try:
            timestamp = from_micros(parse_micros(mapping["timestamp"]))
        except ValueError as error:
            raise InvalidCommandError("invalid-body", f"timestamp: {error}") from None
        metadata = check_json(dump_object(mapping.get("metadata", {}), "metadata"))
        return cls(
            id=mapping["id"],
            name=mapping["name"],
            timestamp=timestamp,
            recorded_at=timestamp,
            raw_data=dump_object(mapping["data"], "data"),
            raw_metadata=canonical_metadata(metadata),
        )


def summarise(checkpoints: Sequence[Checkpoint]) -> Summary:
    """Counts, names and span of checkpoints given oldest first.

    The duration is the span between the earliest and the latest timestamp, so it is never negative, though
    agents' clocks may go backwards.
    """
    names = Counter(checkpoint.name for checkpoint in checkpoints)
    moments = [checkpoint.timestamp for checkpoint in checkpoints]
    return {
        "total_count": len(checkpoints),
        "unique_names": len(names),
        "names": dict(names),
        "first_checkpoint": checkpoints[0].to_dict() if checkpoints else None,
        "last_checkpoint": checkpoints[-1].to_dict() if checkpoints else None,
        "duration_seconds": (max(moments) - min(moments)).total_seconds() if moments else 0.0,
    }


def export_json(checkpoints: Sequence[Checkpoint]) -> str:
    """The interchange list as JSON text, indented by 2."""
    return orjson.dumps([c.to_dict() for c in checkpoints], option=orjson.OPT_INDENT_2).decode()
