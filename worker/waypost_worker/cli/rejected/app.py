"""``waypost rejected``: list and show rejected commands, which are kept unchanged."""

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from cyclopts import App, Parameter, validators

from waypost.model.tenants import TenantScope
from waypost.statements import load_statement
from waypost_worker.cli.rejected.filters import CodeFlag, SessionFlag, place_of
from waypost_worker.cli.rejected.purge import purge
from waypost_worker.cli.rejected.retry import retry
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, TenantFlag
from waypost_worker.cli.support.output import (
    DONE,
    CommandError,
    note,
    printable,
    show_fields,
    show_rows,
    write,
)
from waypost_worker.config.settings import Settings

_SHOWN: Final = 4096
app = App(name="rejected", help="List rejected commands; retry or purge them.")
app.command(retry)
app.command(purge)


@app.command(name="list")
def list_rejected(
    *,
    session: SessionFlag = None,
    code: CodeFlag = None,
    tenant: TenantFlag = None,
    limit: Annotated[
        int,
        Parameter(
            help="number of newest commands to show", validator=validators.Number(gte=1, lte=1_000_000)
        ),
    ] = 50,
    common: Common = NOTHING_GIVEN,
) -> int:
    """List rejected commands, newest first.

    For example:

      waypost rejected list --code invalid-body
      waypost rejected list --session session-1 -o jsonl
    """
    wanted = (session, code, limit, *TenantScope(tenant).bounds)
    found = asyncio.run(_newest(common.settings(), wanted, limit))
    rows = [{"place": f"{row['partition']}/{row['offset']}", **row} for row in found]
    columns = ("place", "session_id", "code", "message")
    show_rows(rows, common.output, columns, "no rejected commands", wrap=("message",))
    if len(rows) == limit:
        note(f"there may be more than {limit}: see --limit")
    return DONE


@app.command
def show(
    place: Annotated[str, Parameter(help="place of the command, partition/offset, as listed")],
    /,
    *,
    full: Annotated[bool, Parameter(help="print the whole value and all headers")] = False,
    value_file: Annotated[Path | None, Parameter(help="write the value, unchanged, to this new file")] = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Show one rejected command with its key, headers and value as received.

    A table shows the beginning of a long value and of long headers, and says
    how long they are; JSON has all of them. At most 1 MiB of a value and
    64 KiB of headers are kept; value_bytes and headers_bytes then say how many
    bytes there were.

    For programs, a key or value that is not UTF-8 is null and comes as
    key_base64 or value_base64.

    For example:

      waypost rejected show 2/1841
      waypost rejected show 2/1841 --value-file command.json
    """
    people = common.output == "table"
    most = _SHOWN if people and not full else None
    found = asyncio.run(_at(common.settings(), *place_of(place), None if value_file else most))
    if not found:
        raise CommandError(
            f"no rejected command {place} is stored; 'waypost rejected list' shows those that are"
        )
    row = dict(found[0])
    kept = row.pop("kept_bytes")
    if value_file is not None:
        _write_new(value_file, row["value"] or b"")
    headers = orjson.loads(row["headers"])
    # The sizes of what was cut when it was kept.
    row = {name: field for name, field in row.items() if not name.endswith("_bytes") or field is not None}
    row["headers"] = "\n".join(f"{name}: {value}" for name, value in headers) if people else headers
    if row["value"] is not None:
        row["value"] = row["value"][:most]
    for field in ("key", "value"):
        row |= _as_text(field, row[field], people)
    if people:
        _show_to_people({"place": place, **row}, kept, most)
    else:
        show_fields({"place": place, **row}, common.output)
    return DONE


def _show_to_people(row: dict[str, Any], kept: int | None, most: int | None) -> None:
    value = row.pop("value")
    if most is not None and len(row["headers"]) > most:
        row["headers"] = f"{row['headers'][:most]}…"
        note(f"these are the first {most:,} characters of the headers: --full prints all of them")
    show_fields(row, "table")
    # Not in the table: to lay out megabytes takes minutes.
    write("\nthe record has no value\n" if value is None else f"\n{printable(value)}\n")
    if most is not None and kept is not None and kept > most:
        note(
            f"these are the first {most:,} of {kept:,} bytes of the value: --full prints all of it, --value-file "
            "writes it to a file"
        )


def _write_new(path: Path, value: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(value)
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}. Nothing was shown") from None


def _as_text(field: str, raw: bytes | None, for_people: bool) -> dict[str, Any]:
    if raw is None:
        return {field: None}
    if for_people:
        return {field: raw.decode(errors="backslashreplace")}
    try:
        return {field: raw.decode()}
    except UnicodeDecodeError:
        return {field: None, f"{field}_base64": b64encode(raw).decode()}


async def _newest(settings: Settings, wanted: Sequence[Any], limit: int) -> list[Any]:
    sql = load_statement("waypost_worker.operations", "rejected_list", settings.postgres_schema)
    async with connected(settings) as databases:
        rows = [row for database in databases for row in await database.fetch(sql, *wanted)]
    # Each database gave its newest ones in this order.
    rows.sort(key=lambda row: (row["partition"], -row["offset"]))
    rows.sort(key=lambda row: row["recorded_at"], reverse=True)
    return rows[:limit]


async def _at(settings: Settings, partition: int, offset: int, most: int | None) -> list[Any]:
    """Return the command there, if one is kept, with at most ``most`` bytes of its value."""
    async with connected(settings) as databases:
        sql = load_statement("waypost_worker.operations", "rejected_show", settings.postgres_schema)
        return list(await databases.of(partition).fetch(sql, partition, offset, most))
