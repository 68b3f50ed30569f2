"""``waypost rejected``: look at the commands that were refused, kept as they came."""

import asyncio
from base64 import b64encode
from typing import Annotated, Any

import orjson
from cyclopts import App, Parameter, validators

from waypost_worker.cli.rejected.filters import CodeFlag, SessionFlag, place_of
from waypost_worker.cli.rejected.purge import purge
from waypost_worker.cli.rejected.retry import retry
from waypost_worker.cli.support.connections import query
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, CommandError, note, show_fields, show_rows
from waypost_worker.config.settings import Settings

app = App(name="rejected", help="Look at the commands that were refused; retry or purge them.")
app.command(retry)
app.command(purge)


@app.command(name="list")
def list_rejected(
    *,
    session: SessionFlag = None,
    code: CodeFlag = None,
    limit: Annotated[
        int, Parameter(help="the newest so many", validator=validators.Number(gte=1, lte=1_000_000))
    ] = 50,
    common: Common = NOTHING_GIVEN,
) -> int:
    """List refused commands, newest first.

    For example:

      waypost rejected list --code invalid-body
      waypost rejected list --session session-1 -o jsonl
    """
    found = asyncio.run(_newest(common.settings(), session, code, limit))
    rows = [{"place": f"{row['partition']}/{row['offset']}", **row} for row in found]
    columns = ("place", "session_id", "code", "message")
    show_rows(rows, common.output, columns, "nothing was refused", wrap=("session_id", "message"))
    if len(rows) == limit:
        note(f"there may be more than {limit}: see --limit")
    return DONE


@app.command
def show(
    place: Annotated[str, Parameter(help="partition/offset, as the list shows it")],
    /,
    *,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Show one refused command with its key, headers and value as they came.

    At most 1 MiB of a value and 64 KiB of headers are kept; value_bytes and
    headers_bytes then say how many bytes there were.

    For programs, a key or value that is not UTF-8 is null and comes as
    key_base64 or value_base64.

    For example:

      waypost rejected show 2/1841
    """
    found = asyncio.run(_at(common.settings(), *place_of(place)))
    if not found:
        raise CommandError(f"no refused command {place} is kept; 'waypost rejected list' shows which are")
    row = dict(found[0])
    people = common.output == "table"
    headers = orjson.loads(row["headers"])
    # The sizes of what was cut.
    row = {name: field for name, field in row.items() if not name.endswith("_bytes") or field is not None}
    row["headers"] = "\n".join(f"{name}: {value}" for name, value in headers) if people else headers
    for field in ("key", "value"):
        row |= _as_text(field, row[field], people)
    show_fields({"place": place, **row}, common.output)
    return DONE


def _as_text(field: str, raw: bytes | None, for_people: bool) -> dict[str, Any]:
    if raw is None:
        return {field: None}
    if for_people:
        return {field: raw.decode(errors="backslashreplace")}
    try:
        return {field: raw.decode()}
    except UnicodeDecodeError:
        return {field: None, f"{field}_base64": b64encode(raw).decode()}


async def _newest(settings: Settings, session: str | None, code: str | None, limit: int) -> list[Any]:
    sql = query("rejected/list", settings.postgres_schema)
    async with connected(settings) as databases:
        rows = [row for database in databases for row in await database.fetch(sql, session, code, limit)]
    # Each database gave its newest ones in this order.
    rows.sort(key=lambda row: (row["partition"], -row["offset"]))
    rows.sort(key=lambda row: row["recorded_at"], reverse=True)
    return rows[:limit]


async def _at(settings: Settings, partition: int, offset: int) -> list[Any]:
    async with connected(settings) as databases:
        sql = query("rejected/show", settings.postgres_schema)
        return list(await databases.of(partition).fetch(sql, partition, offset))
