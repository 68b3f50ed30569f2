"""The receipt of an erasure: what was erased when, and what may still hold bytes of it. Written as a whole or not."""

import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from waypost import __version__
from waypost_worker.cli.erase.keys import DeletedKey
from waypost_worker.cli.erase.remaining import Remaining
from waypost_worker.cli.support.output import USAGE, CommandError

FORMAT: Final = "waypost-erasure"
VERSION: Final = 1


def make_receipt(
    session: str, topic: str, body: dict[str, Any], key: DeletedKey | None, left: Sequence[Remaining]
) -> dict[str, Any]:
    """Return the receipt. ``body`` is that of the result of the erase command.

    If an erasure is repeated, ``erased_at`` and ``key`` are those of the first time. ``key_came_back`` says that an
    older key store had been restored since.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "waypost": __version__,
        "session_id": session,
        "erased_at": body["erased_at"],
        "checkpoints_removed_now": body["count"],
        "command": {"topic": topic, **body["command"]},
        "key": None if key is None else key.for_programs(),
        "key_came_back": key is not None and key.returned,
        "in_postgres": "tombstone",
        "may_still_hold_bytes": [one.for_programs() for one in left],
        "written_at": datetime.now(UTC),
    }


def check_writable(path: Path) -> None:
    """Raise CommandError unless a receipt can be written there: after the erasure, it is too late to refuse."""
    if path.is_dir():
        raise CommandError(f"--receipt: {path} is a directory. Nothing was changed; name a file", USAGE)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CommandError(
            f"--receipt: {path} can't be written ({error.strerror}). Nothing was changed", USAGE
        ) from None


def check_directory(path: Path) -> None:
    """Create this directory if it is missing. Raise CommandError unless receipts can be written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"--receipt: {path} can't be made a directory ({error.strerror}). Nothing was changed", USAGE
        ) from None
    check_writable(path / "receipt.json")


def write_receipt(path: Path, made: dict[str, Any]) -> None:
    """Write a receipt, and replace an earlier one of the same name."""
    text = orjson.dumps(made, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z) + b"\n"
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        draft = Path(name)
        try:
            with open(handle, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(
            f"the session is erased, but its receipt {path} can't be written: {error.strerror}. Run the command again "
            "for another one"
        ) from None
