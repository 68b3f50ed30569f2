"""Stored rejected commands: whether it makes sense to send one again, and removing those of no further use."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from waypost.errors import InvalidCommandError
from waypost.statements import load_statement
from waypost.wire.decode import parse_body
from waypost.wire.envelope import open_envelope
from waypost.wire.event_types import PARTITION_TYPES
from waypost.wire.topics import partition_of

#: Of a command that is sent again, in bytes: the broker's own limit decides.
LARGEST: Final = 16 * 1024 * 1024
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class RefusedCommand:
    """A rejected command; a record as far as reading its envelope needs one."""

    partition: int
    offset: int
    session_id: str | None
    command_id: str | None
    code: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, Any]]  # a value may be null
    value_bytes: int | None  # if only the beginning of the value is kept
    timestamp: int = 0

    @property
    def place(self) -> str:
        """Return its place in the command topic, as people type it."""
        return f"{self.partition}/{self.offset}"

    def problem(self) -> InvalidCommandError | None:
        """Return why it would be rejected no matter what its session contains; None if it can be read."""
        if self.value_bytes is not None:
            return InvalidCommandError(
                "too-large",
                f"only the first {len(self.value or b'')} of {self.value_bytes} bytes of its value are kept: send the "
                "whole with --value, or publish it again from its origin",
            )
        try:
            envelope = open_envelope(self)
            parse_body(envelope.type, envelope.body)
        except InvalidCommandError as error:
            return error
        if envelope.session_id is None and envelope.type not in PARTITION_TYPES:
            return InvalidCommandError("invalid-envelope", "the record has no key")
        return None

    def target(self, partitions: int) -> int:
        """The partition that it belongs to."""
        return self.partition if self.key is None else partition_of(self.key.decode(), partitions)


def refused_command(row: Any, value: bytes | None = None) -> RefusedCommand:
    """Return the command in a row of ``rejected_commands``, with another value if one is given."""
    stored = orjson.loads(row["headers"])
    return RefusedCommand(
        row["partition"],
        row["offset"],
        row["session_id"],
        row["command_id"],
        row["code"],
        row["key"],
        row["value"] if value is None else value,
        [(name, None if text is None else text.encode("latin-1")) for name, text in stored],
        row["value_bytes"] if value is None else None,
    )


@dataclass(frozen=True, slots=True)
class RejectedFilters:
    """Conditions that have to match; None if one does not count. Times are the broker's, when it received the
    command.
    """

    session: str | None = None
    code: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    places: tuple[tuple[int, int], ...] | None = None

    def parameters(self) -> list[Any]:
        """Return the first six parameters of the statements."""
        places = ([], []) if self.places is None else tuple(zip(*self.places, strict=True))
        listed = [None, None] if self.places is None else [list(column) for column in places]
        return [self.session, self.code, self.since, self.until, *listed]


async def count_rejected(
    connections: Iterable[Any], schema: str, filters: RejectedFilters
) -> list[dict[str, Any]]:
    """Return for each code how many ``commands`` match, and the times of the ``oldest`` and the ``newest``."""
    sql = load_statement("waypost_worker.operations", "rejected_count", schema)
    counts: dict[str, dict[str, Any]] = {}
    for connection in connections:
        for row in await connection.fetch(sql, *filters.parameters()):
            one = counts.setdefault(row["code"], {**row, "commands": 0})
            one["commands"] += row["commands"]
            one["oldest"] = min(one["oldest"], row["oldest"])
            one["newest"] = max(one["newest"], row["newest"])
    return [counts[code] for code in sorted(counts)]


async def purge_rejected(
    connections: Iterable[Any], schema: str, filters: RejectedFilters
) -> AsyncIterator[int]:
    """Drop what matches in small batches, so that it disturbs no worker; yield how many each batch dropped."""
    sql = load_statement("waypost_worker.operations", "rejected_purge", schema)
    for connection in connections:
        batch = _BATCH
        while batch == _BATCH:
            status = await connection.execute(sql, *filters.parameters(), _BATCH)
            batch = int(status.rpartition(" ")[2])
            yield batch
