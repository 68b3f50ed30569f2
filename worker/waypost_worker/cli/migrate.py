"""``waypost migrate``: the database's schema."""

import asyncio
from typing import Annotated, Any

from cyclopts import Parameter

from waypost_worker.cli.common import NOTHING_GIVEN, Common
from waypost_worker.cli.output import DONE, Format, note, show_fields, show_rows, write
from waypost_worker.cli.reach import connected
from waypost_worker.settings import Settings


def migrate(
    *,
    dry_run: Annotated[bool, Parameter(help="show what is pending and change nothing")] = False,
    roles: Annotated[bool, Parameter(help="print SQL that makes roles, and change nothing")] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Bring the database's schema up to this version.

    All pending migrations are applied, or none. Safe to run from several places
    at once.

    With --roles, print the SQL for roles with the least rights (one that
    migrates, one for workers, one that only reads); an administrator runs it
    before the first migration and once more after it. See docs/security.md.

    For example:

      waypost migrate --dry-run
      waypost migrate --roles | psql --dbname waypost
      waypost migrate --postgres-dsn postgresql://waypost@db/waypost
    """
    settings = common.settings()
    if roles:
        return _print_roles(settings, common.output)
    found = asyncio.run(_migrate(settings, dry_run))
    rows = [{"number": each.number, "name": each.name, "sha256": each.sha256} for each in found]
    show_rows(rows, common.output, ("number", "name"), "the schema is up to date")
    if rows:
        note(f"{len(rows)} pending, nothing was changed" if dry_run else f"{len(rows)} applied")
    return DONE


def _print_roles(settings: Settings, output: Format) -> int:
    from waypost_worker.postgres.statements import statement

    sql = statement("roles", settings.postgres_schema)
    if output == "table":
        write(sql)
    else:
        show_fields({"sql": sql}, output)
    return DONE


async def _migrate(settings: Settings, dry_run: bool) -> list[Any]:
    from waypost_worker.postgres.migrate import migrate as apply
    from waypost_worker.postgres.migrate import pending

    async with connected(settings) as connection:
        schema = settings.postgres_schema
        return list(await (pending(connection, schema) if dry_run else apply(connection, schema)))
