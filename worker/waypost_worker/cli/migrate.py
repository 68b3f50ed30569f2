"""``waypost migrate``: the database's schema."""

import asyncio
from typing import Annotated, Any

from cyclopts import Parameter

from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import (
    DONE,
    USAGE,
    CommandError,
    Format,
    note,
    show_fields,
    show_rows,
    write,
)
from waypost_worker.config.settings import Settings


def migrate(
    *,
    dry_run: Annotated[bool, Parameter(help="show pending migrations, and change nothing")] = False,
    roles: Annotated[bool, Parameter(help="print SQL that creates roles, and change nothing")] = False,
    tenants: Annotated[
        bool, Parameter(help="print SQL for roles that read one tenant, and change nothing")
    ] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Bring the database's schema up to this version.

    Either all pending migrations are applied, or none. It is safe to run this from several machines at the same time.
    If there are several databases (docs/sharding.md), each is migrated, and then records its place in the list.

    With --roles, print the SQL for roles with minimal privileges (one that migrates, one for workers, one that only
    reads). An administrator runs it before the first migration and again after it. See docs/security.md.

    With --tenants, print the SQL for roles that see the sessions of one tenant
    only, by row-level security; an administrator runs it after each migration.
    See docs/tenants.md.

    For example:

      waypost migrate --dry-run
      waypost migrate --roles | psql --dbname waypost
      waypost migrate --postgres-dsn postgresql://waypost@db/waypost
    """
    settings = common.settings()
    if roles and tenants:
        raise CommandError("give --roles or --tenants: their SQL is run at different times", USAGE)
    if roles or tenants:
        return _print_sql("roles" if roles else "tenants", settings, common.output)
    found = asyncio.run(_migrate(settings, dry_run))
    rows = [
        {
            **({"shard": shard} if len(found) > 1 else {}),
            "number": each.number,
            "name": each.name,
            "sha256": each.sha256,
        }
        for shard, migrations in enumerate(found)
        for each in migrations
    ]
    columns = ("shard", "number", "name") if len(found) > 1 else ("number", "name")
    show_rows(rows, common.output, columns, "the schema is up to date")
    if rows:
        note(f"{len(rows)} pending, nothing was changed" if dry_run else f"{len(rows)} applied")
    return DONE


def _print_sql(name: str, settings: Settings, output: Format) -> int:
    from waypost_worker.postgres.statements import statement

    sql = statement(name, settings.postgres_schema)
    if output == "table":
        write(sql)
    else:
        show_fields({"sql": sql}, output)
    if (count := len(settings.dsns)) > 1:
        note(f"run it in each of the {count} databases")
    return DONE


async def _migrate(settings: Settings, dry_run: bool) -> list[list[Any]]:
    """Return the migrations that were, or would be, applied to each database. Several databases then record their
    places.
    """
    from waypost_worker.postgres.migrate import SchemaError, pending
    from waypost_worker.postgres.migrate import migrate as apply
    from waypost_worker.postgres.shards import check_set, note_places

    schema = settings.postgres_schema
    found: list[list[Any]] = []
    async with connected(settings) as databases:
        await check_set(databases.connections, schema)
        for shard, database in enumerate(databases):
            try:
                found.append(list(await (pending(database, schema) if dry_run else apply(database, schema))))
            except SchemaError as error:
                where = f"shard {shard} of {len(databases)}: " if len(databases) > 1 else ""
                raise SchemaError(f"{where}{error}") from None
        if not dry_run:
            await note_places(databases.connections, schema)
    return found
