"""``waypost rejected purge``: drop rejected commands that nobody needs."""

import asyncio
from typing import Annotated, Any, Final

from cyclopts import Parameter

from waypost_worker.cli.rejected.filters import (
    AllFlag,
    CodeFlag,
    PositionArgument,
    SessionFlag,
    SinceFlag,
    UntilFlag,
    chosen_filters,
)
from waypost_worker.cli.support.ages import moment_before
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, confirm, note, show_fields, show_rows
from waypost_worker.config.settings import Settings
from waypost_worker.operations.rejected import RejectedFilters, count_rejected, purge_rejected

#: Up to this number there is no need to tell how far it is.
_QUIET: Final = 10_000


def purge(
    *places: PositionArgument,
    session: SessionFlag = None,
    code: CodeFlag = None,
    since: SinceFlag = None,
    until: UntilFlag = None,
    older_than: Annotated[
        str | None, Parameter(help="only commands older than this, such as 30d or 12h")
    ] = None,
    every: AllFlag = False,
    dry_run: Annotated[bool, Parameter(help="show how many would be dropped, and drop nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Drop rejected commands from the list.

    Only the copies in Postgres go: the command topic and the results stay as
    they are. In small batches, so it disturbs no worker; a scheduler can run
    it with --older-than.

    For example:

      waypost rejected purge --older-than 30d --yes
      waypost rejected purge --code invalid-body --dry-run
      waypost rejected purge 2/1841
    """
    settings = common.settings()
    if older_than is not None:
        if until is not None:
            raise CommandError("--until and --older-than mean the same: choose one", USAGE)
        until = moment_before("--older-than", older_than).isoformat()
    filters = chosen_filters(places, session, code, since, until, every)
    counts = asyncio.run(_counts(settings, filters))
    total = sum(row["commands"] for row in counts)
    if dry_run:
        show_rows(counts, common.output, ("code", "commands", "oldest", "newest"), "none matches")
        return DONE
    if total:
        confirm(f"this permanently drops {total} rejected command{'' if total == 1 else 's'}", yes)
    show_fields({"dropped": asyncio.run(_purge(settings, filters, total))}, common.output)
    return DONE


async def _counts(settings: Settings, filters: RejectedFilters) -> list[dict[str, Any]]:
    async with connected(settings) as databases:
        return await count_rejected(databases, settings.postgres_schema, filters)


async def _purge(settings: Settings, filters: RejectedFilters, total: int) -> int:
    dropped, said = 0, 0
    async with connected(settings) as databases:
        async for batch in purge_rejected(databases, settings.postgres_schema, filters):
            dropped += batch
            if total > _QUIET and dropped * 10 // total > said:
                said = dropped * 10 // total
                note(f"  {dropped} of {total} dropped")
    return dropped
