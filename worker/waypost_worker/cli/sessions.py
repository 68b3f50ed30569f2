"""``waypost session``: look at sessions, take them out and in, roll them back."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from waypost import commands
from waypost.outgoing import rollback_body
from waypost.publisher import Publisher
from waypost.reader import Reader, SessionReader
from waypost_worker.cli.common import Common, run
from waypost_worker.cli.output import (
    DONE,
    FAILED,
    USAGE,
    CommandError,
    note,
    show_fields,
    show_rows,
)
from waypost_worker.cli.publish import confirm
from waypost_worker.settings import Settings

app = App(name="session", help="Look at sessions, take them out and in, roll them back.")


def _reader(settings: Settings) -> Reader:
    return Reader(settings.postgres_dsn.get_secret_value(), timeout=settings.request_timeout)


@app.command(name="list")
def list_sessions(
    *,
    prefix: Annotated[str, Parameter(help="ids that begin with this")] = "",
    limit: Annotated[int, Parameter(help="most sessions to show")] = 50,
    cursor: Annotated[str, Parameter(help="go on after this session id")] = "",
    common: Common | None = None,
) -> int:
    """List sessions by id.

    For example:

      waypost session list --prefix team-a/ --limit 20
    """
    common = common or Common()
    settings = common.settings()

    async def work() -> list[dict[str, Any]]:
        async with _reader(settings) as reader:
            found = await reader.sessions(prefix=prefix, limit=limit, cursor=cursor)
            return [asdict(session) for session in found]

    rows = run(work())
    columns = ("session_id", "partition", "checkpoints", "counter", "last_recorded_at")
    show_rows(rows, common.output, columns, "no sessions")
    if len(rows) == limit and common.output == "table":
        note(f"there may be more: --cursor {rows[-1]['session_id']!r}")
    return DONE


@app.command
def show(
    session: Annotated[str, Parameter(help="session id, or a checkpoint id to show its data")],
    *,
    name: Annotated[str | None, Parameter(help="only checkpoints of this name")] = None,
    limit: Annotated[int, Parameter(help="the newest so many")] = 50,
    common: Common | None = None,
) -> int:
    """Show a session's checkpoints, newest first, or one checkpoint with its data.

    For example:

      waypost session show session-1
      waypost session show session-1:12 -o json
    """
    common = common or Common()
    settings = common.settings()

    async def work() -> list[dict[str, Any]] | dict[str, Any]:
        async with _reader(settings) as reader:
            if await reader.session_info(session) is None:
                owner, _, number = session.rpartition(":")
                found = await reader.session(owner).get(session) if number.isdigit() else None
                if found is None:
                    raise CommandError(f"no session and no checkpoint {session!r} is known")
                return {**found.to_dict(), "recorded_at": found.recorded_at, "pinned": found.pinned}
            page = await reader.session(session).page(name=name, limit=limit, newest_first=True)
            return [
                {
                    "id": c.id,
                    "name": c.name,
                    "timestamp": c.timestamp,
                    "pinned": c.pinned,
                    "bytes": len(c.raw_data),
                    "metadata": c.metadata,
                }
                for c in page.checkpoints
            ]

    found = run(work())
    if isinstance(found, dict):
        show_fields(found, common.output)
    else:
        columns = ("id", "name", "timestamp", "pinned", "bytes", "metadata")
        show_rows(found, common.output, columns, "the session holds no checkpoints")
    return DONE


@app.command
def export(
    session: Annotated[str, Parameter(help="session id")],
    *,
    to: Annotated[Path | None, Parameter(help="file, instead of standard output")] = None,
    common: Common | None = None,
) -> int:
    """Write a session as the interchange JSON list.

    For example:

      waypost session export session-1 --to session-1.json
    """
    settings = (common or Common()).settings()

    async def work(out: Any) -> int:
        async with _reader(settings) as reader:
            if await reader.session_info(session) is None:
                raise CommandError(f"no session {session!r} is known")
            async for piece in reader.session(session).export_stream():
                out.write(piece)
            out.write(b"\n")
            return await reader.session(session).count()

    if to is None:
        run(work(sys.stdout.buffer))
        sys.stdout.flush()
        return DONE
    part = to.with_name(to.name + ".part")
    try:
        with part.open("wb") as out:
            count = run(work(out))
        part.replace(to)
    except OSError as error:
        raise CommandError(f"{to} can't be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    note(f"{count} checkpoints written to {to}")
    return DONE


@app.command(name="import")
def import_session(
    session: Annotated[str, Parameter(help="session id to import into")],
    file: Annotated[Path, Parameter(help="an exported list; - for standard input")],
    *,
    on_conflict: Annotated[str, Parameter(help="skip, replace or reject")] = "skip",
    timeout: Annotated[float, Parameter(help="seconds to wait for each part")] = 30,
    common: Common | None = None,
) -> int:
    """Take over an exported list, through the log, and wait until it is applied.

    For example:

      waypost session import session-1 session-1.json --on-conflict replace
    """
    from waypost.outgoing import import_body
    from waypost.publisher import split_import

    common = common or Common()
    settings = common.settings()
    if on_conflict not in ("skip", "replace", "reject"):
        raise CommandError("--on-conflict is one of skip, replace, reject", USAGE)
    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}", USAGE) from None
    total = {"imported": 0, "replaced": 0, "skipped": 0}

    async def work() -> None:
        async with _publisher(settings) as publisher:
            for part in split_import(text):
                body = import_body(part, on_conflict)  # type: ignore[arg-type]
                result = await publisher.publish_and_wait(session, commands.IMPORT, body, timeout=timeout)
                if result.type.endswith("rejected"):
                    raise CommandError(f"{result.body['code']}: {result.body['message']}")
                for key in total:
                    total[key] += result.body.get(key, 0)

    run(work())
    show_fields({"session_id": session, **total}, common.output)
    return DONE


@app.command
def rollback(
    checkpoint: Annotated[str, Parameter(help="checkpoint id, session:number")],
    *,
    discard_later: Annotated[bool, Parameter(help="drop every later checkpoint, pinned ones too")] = False,
    dry_run: Annotated[bool, Parameter(help="show what would be dropped and change nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: Annotated[float, Parameter(help="seconds to wait for the result")] = 10,
    common: Common | None = None,
) -> int:
    """Record a rollback and show the checkpoint's data.

    For example:

      waypost session rollback session-1:12 --discard-later --dry-run
      waypost session rollback session-1:12 --discard-later --yes
    """
    common = common or Common()
    settings = common.settings()
    session = checkpoint.rpartition(":")[0]
    if not session:
        raise CommandError(f"{checkpoint!r} is not a checkpoint id, which looks like session:number", USAGE)
    later = run(_later(settings, session, checkpoint)) if discard_later else []
    if dry_run:
        columns = ("id", "name", "timestamp", "pinned")
        show_rows(later, common.output, columns, "nothing would be dropped")
        return DONE
    if later:
        confirm(f"this drops {len(later)} checkpoints after {checkpoint}", yes)

    async def work() -> int:
        async with _publisher(settings) as publisher:
            body = rollback_body(checkpoint, discard_later)
            result = await publisher.publish_and_wait(session, commands.ROLLBACK, body, timeout=timeout)
            short = result.type.rpartition(".")[2]
            show_fields({"result": short, **result.body}, common.output)
            return FAILED if short == "rejected" else DONE

    return run(work())


async def _later(settings: Settings, session: str, checkpoint: str) -> list[dict[str, Any]]:
    async with _reader(settings) as reader:
        found: SessionReader = reader.session(session)
        target = await found.get(checkpoint)
        if target is None:
            raise CommandError(f"{session!r} holds no checkpoint {checkpoint!r}")
        return [
            {"id": c.id, "name": c.name, "timestamp": c.timestamp, "pinned": c.pinned}
            async for c in found
            if c.number > target.number
        ]


def _publisher(settings: Settings) -> Publisher:
    return Publisher(settings.bootstrap_servers, prefix=settings.topic_prefix, source="/waypost/cli")
