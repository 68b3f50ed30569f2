"""Rejected commands as pages show them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from waypost_worker.operations.rejected import RefusedCommand, refused_command

#: Bytes of a value that a page shows.
SHOWN: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """Rejected command in the list."""

    partition: int
    offset: int
    session_id: str | None
    command_id: str | None
    code: str
    message: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class RejectedPage:
    """Rejected command. ``value`` is its beginning as text, ``size`` the bytes that are kept, ``whole`` what came.

    ``problem`` is why it would be rejected again whatever its session holds.
    """

    row: RejectedRow
    key: str
    headers: tuple[tuple[str, str], ...]
    value: str
    size: int
    whole: int | None
    problem: str | None
    target: int | None


def rejected_row(row: Mapping[str, Any]) -> RejectedRow:
    """Return a row for the list."""
    return RejectedRow(
        row["partition"],
        row["offset"],
        row["session_id"],
        row["command_id"],
        row["code"],
        row["message"],
        row["recorded_at"],
    )


def rejected_page(row: Mapping[str, Any], partitions: int) -> RejectedPage:
    """Return a rejected command for its page."""
    refused = refused_command(row)
    value = row["value"] or b""
    problem = refused.problem()
    return RejectedPage(
        rejected_row(row),
        (row["key"] or b"").decode(errors="backslashreplace"),
        tuple(_header(name, text) for name, text in refused.headers),
        value[:SHOWN].decode(errors="backslashreplace"),
        len(value),
        row["value_bytes"],
        None if problem is None else f"{problem.code}: {problem.message}",
        _target(refused, partitions),
    )


def _header(name: str, value: bytes | None) -> tuple[str, str]:
    return name, "null" if value is None else value.decode(errors="backslashreplace")


def _target(refused: RefusedCommand, partitions: int) -> int | None:
    try:
        return refused.target(partitions)
    except UnicodeDecodeError:
        return None
