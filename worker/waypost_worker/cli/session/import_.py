"""``waypost session import``: exported checkpoints, of one session or of many, as commands in the log."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Annotated

from cyclopts import Parameter

from waypost.errors import InvalidCommandError
from waypost.model.commands import OnConflict
from waypost.publisher.stamps import new_id
from waypost.wire.encode import check_session_id
from waypost.wire.event_types import EventType
from waypost_worker.cli.support.connections import publishing
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, note, show_fields
from waypost_worker.cli.support.progress import WorkProgress
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.keys import key_settings
from waypost_worker.config.settings import Settings
from waypost_worker.operations.interchange import Part, parts_of_lines, parts_of_list
from waypost_worker.operations.transfer import Step, Totals, Transfer


def import_session(
    session: Annotated[
        str, Parameter(help="session id to import into, or the file", allow_leading_hyphen=True)
    ],
    file: Annotated[
        Path | None, Parameter(help="exported file; - for standard input", allow_leading_hyphen=True)
    ] = None,
    /,
    *,
    on_conflict: Annotated[OnConflict, Parameter(help="what to do if an id is taken")] = "skip",
    resume: Annotated[str | None, Parameter(help="continue the import with this id")] = None,
    timeout: TimeoutFlag = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Import an exported list, or lines of checkpoints.

    The import goes through the log, and this command waits until it is applied. Into an empty session of the same name,
    ids, order, times and data are imported unchanged; ids of another session get new numbers. An import that is larger
    than one message is sent in parts. Without a SESSION, each line goes to the session in its id.

    An import of several parts prints its id at the beginning. To continue after an interruption, pass that id with
    --resume and the same file; nothing is imported twice.

    For example:

      waypost session import session-1 session-1.json --on-conflict replace
      waypost session export session-1 | waypost session import copy -
      waypost session import all.jsonl
    """
    settings = common.settings()
    owner = None if file is None else check_session_id(session)
    path = Path(session) if file is None else file
    encrypts = key_settings(settings) is not None
    with _opened(path) as source:
        first = _first_byte(source)
        if first == b"[":
            if owner is None:
                raise CommandError(f"{path} is a list: name the SESSION to import it into", USAGE)
            listed = parts_of_list(source.read(), owner, on_conflict, encrypts=encrypts)
            total = _run(settings, iter(listed), len(listed), resume, timeout)
        elif first in (b"{", b""):
            count = _checked(source, owner, on_conflict, encrypts)
            parts = parts_of_lines(source, owner, on_conflict, encrypts=encrypts)
            total = _run(settings, parts, count, resume, timeout)
        else:
            raise InvalidCommandError("invalid-body", f"{path} is neither a JSON list nor lines of JSON")
    subject = {"sessions": len(total.sessions)} if owner is None else {"session_id": owner}
    show_fields({**subject, **total.shown()}, common.output)
    return DONE


def _run(
    settings: Settings, parts: Iterator[Part], count: int | None, resume: str | None, timeout: float
) -> Totals:
    identifier = resume or new_id()
    if count == 1:
        return asyncio.run(_send(settings, Transfer(identifier, timeout), _steps(parts, count)))
    note(f"import {identifier}: to continue after an interruption, pass --resume {identifier}")
    with ExitStack() as stack:
        if count is None:  # nobody knows how much a pipe still delivers
            transfer = Transfer(identifier, timeout)
        else:
            progress = stack.enter_context(WorkProgress("importing", count, "parts"))
            transfer = Transfer(identifier, timeout, lambda: progress.advanced(0, 1))
        return asyncio.run(_send(settings, transfer, _steps(parts, count)))


async def _send(settings: Settings, transfer: Transfer, steps: AsyncIterator[Step]) -> Totals:
    async with publishing(settings) as publisher:
        return await transfer.run(publisher, steps)


async def _steps(parts: Iterator[Part], count: int | None) -> AsyncIterator[Step]:
    of = "" if count is None else f" of {count}"
    number = 0
    # In a thread, so that results can arrive while a pipe delivers its lines slowly.
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        number += 1
        yield Step(part.session, EventType.IMPORT, part.body, f"part {number}{of}", part.where)


def _checked(source: IO[bytes], session: str | None, on_conflict: OnConflict, encrypts: bool) -> int | None:
    """Return how many parts there will be, after checking all of them; None for input that can be read only once."""
    if not source.seekable():
        return None
    count = sum(1 for _ in parts_of_lines(source, session, on_conflict, encrypts=encrypts))
    source.seek(0)
    return count


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        source = path.open("rb")
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", USAGE) from None
    with source:
        yield source


def _first_byte(source: IO[bytes]) -> bytes:
    """Return the first byte that is not white space, without consuming it."""
    if source.seekable():
        while (found := source.read(1)) and found.isspace():
            pass
        source.seek(0)
        return found
    # A pipe: as much as it has by now. White space in front of the first line is not looked behind.
    peeked: bytes = source.peek(64) if hasattr(source, "peek") else b""
    return peeked.lstrip()[:1]
