"""``waypost rejected``: the commands that were refused, kept as they came."""

from importlib.resources import files
from typing import Annotated, Any

import orjson
from cyclopts import App, Parameter

from waypost_worker.cli.common import Common, run
from waypost_worker.cli.output import DONE, CommandError, show_fields, show_rows
from waypost_worker.settings import Settings

app = App(name="rejected", help="The commands that were refused, kept as they came.")


async def _rows(settings: Settings, statement: str, *arguments: Any) -> list[Any]:
    import asyncpg

    sql = files("waypost_worker.cli").joinpath("sql", f"{statement}.sql").read_text()
    connection: Any = await asyncpg.connect(
        settings.postgres_dsn.get_secret_value(), timeout=settings.request_timeout
    )
    try:
        rows: list[Any] = await connection.fetch(sql, *arguments)
    finally:
        await connection.close()
    return rows


@app.command(name="list")
def list_rejected(
    *,
    session: Annotated[str | None, Parameter(help="only of this session")] = None,
    code: Annotated[str | None, Parameter(help="only with this code")] = None,
    limit: Annotated[int, Parameter(help="the newest so many")] = 50,
    common: Common | None = None,
) -> int:
    """List refused commands, newest first.

    For example:

      waypost rejected list --code invalid-body
    """
    common = common or Common()
    found = run(_rows(common.settings(), "list_rejected", session, code, limit))
    rows = [{**row, "command": f"{row['partition']}/{row['offset']}"} for row in found]
    show_rows(rows, common.output, ("command", "session_id", "code", "message"), "nothing was refused")
    return DONE


@app.command
def show(
    command: Annotated[str, Parameter(help="partition/offset, as the list shows it")],
    *,
    common: Common | None = None,
) -> int:
    """Show one refused command with its raw key, headers and value.

    For example:

      waypost rejected show 2/1841
    """
    common = common or Common()
    partition, _, offset = command.partition("/")
    if not (partition.isdigit() and offset.isdigit()):
        raise CommandError(f"{command!r} is not partition/offset", 2)
    found = run(_rows(common.settings(), "show_rejected", int(partition), int(offset)))
    if not found:
        raise CommandError(f"no refused command {command} is kept")
    row = dict(found[0])
    headers = orjson.loads(row["headers"])
    row["headers"] = dict(headers)
    for field in ("key", "value"):
        row[field] = None if row[field] is None else row[field].decode(errors="backslashreplace")
    show_fields(row, common.output)
    return DONE
