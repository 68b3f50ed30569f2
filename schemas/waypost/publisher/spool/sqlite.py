"""Spools as version 0.1 wrote them, in SQLite, turned into logs. Version 0.3 will not have this."""

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from waypost.errors import SpoolError
from waypost.private_directory import sync_directory
from waypost.publisher.pending import Pending
from waypost.publisher.spool import record
from waypost.publisher.spool.files import create_private, require_own
from waypost.publisher.spool.log import DAMAGED_SUFFIX, DRAFT_SUFFIX, LOG_SUFFIX
from waypost.statements import load_statement

log = logging.getLogger("waypost")
_FILES: Final = ("", "-wal", "-shm")
_FORMAT: Final = 1


def convert(old: Path) -> None:
    """Turn such a file into a log with the same number. Nobody else may have it.

    Rows that are not commands stay in the old file, whose name then ends in ``.damaged``.

    Raises:
        SpoolError: It can't be read; it is left as it is.
        OSError: The log can't be written, or the old file not be removed.
    """
    require_own(old)
    new = old.with_name(f"{old.stem}-{1:06d}{LOG_SUFFIX}")
    # A log that is there is whole: the last publisher died before it could remove the old file.
    if not new.exists():
        try:
            _copy(old, new)
        except sqlite3.Error as error:
            raise SpoolError(f"{old.name} can't be read: {error}") from error
    for suffix in _FILES:
        old.with_name(old.name + suffix).unlink(missing_ok=True)


def _copy(old: Path, new: Path) -> None:
    damaged = 0
    draft = new.with_name(new.name + DRAFT_SUFFIX)
    with closing(sqlite3.connect(old)) as connection:
        # Text that is not UTF-8 must not end the reading of all rows: its own row is found to be damaged.
        connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        (version,) = connection.execute(_sql("version")).fetchone()
        if version != _FORMAT:
            raise SpoolError(f"{old.name} has format {version}: drain it with the version that wrote it")
        match connection.execute(_sql("about")).fetchone():
            case (str() as topic, bytes() as source):
                pass
            case _:
                raise SpoolError(f"{old.name} does not say which topic its commands belong to")
        with create_private(draft) as file:
            file.write(record.of_file(topic, source))
            for row, *fields in connection.execute(_sql("read")):
                command_id, command_type, session, at, traceparent, partition, value = fields
                pending = Pending(command_id, command_type, session, b"", at, traceparent, partition)
                pending.value = value
                if (problem := record.problem(pending)) is None:
                    file.write(record.of_command(pending, row))
                    continue
                damaged += 1
                log.error(
                    "row %d of the spool %s is not a command and is kept in it: its %s", row, old, problem
                )
            file.flush()
            os.fsync(file.fileno())
    if damaged:
        old.with_suffix(DAMAGED_SUFFIX).unlink(missing_ok=True)
        old.with_suffix(DAMAGED_SUFFIX).hardlink_to(old)
    draft.rename(new)
    sync_directory(new.parent)


def _sql(name: str) -> str:
    return load_statement("waypost.publisher.spool", name)
