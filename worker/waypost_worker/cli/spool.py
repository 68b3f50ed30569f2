"""``waypost spool``: send the commands that publishers left on this machine's disk."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter, validators

from waypost_worker.cli.support.connections import publishing
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, FAILED, USAGE, CommandError, note, show_fields
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost.publisher.stats import PublisherStats

app = App(name="spool", help="Send the commands that publishers left in a spool directory.")
_Patience = Annotated[
    float,
    Parameter(help="seconds without progress after which to give up", validator=validators.Number(gt=0)),
]


@app.command
def drain(
    directory: Annotated[Path, Parameter(help="the spool= directory of the publishers")],
    /,
    *,
    timeout: _Patience = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Send the commands that dead publishers left in a spool directory, oldest first.

    The next publisher that starts with the directory does the same, so use this if no publisher will. Spools of live
    publishers, or of another topic prefix, are left alone. Commands that Kafka does not accept stay in the directory.
    The exit code is 1 if any are left or damaged.

    For example:

      waypost spool drain /var/lib/my-agent/spool
      waypost spool drain ./spool --timeout 300 -o json
    """
    if not directory.is_dir():
        raise CommandError(f"There is no directory {directory}", USAGE)
    left, stats = asyncio.run(_drain(common.settings(), directory, timeout))
    show_fields(
        {
            "found": stats.recovered,
            "sent": stats.delivered,
            "refused": stats.failed,
            "damaged": stats.set_aside,
            "left": left,
        },
        common.output,
    )
    if left:
        note(f"Kafka did not accept {left} commands, which are kept in {directory}: {stats.last_error}")
    if stats.set_aside:
        note(f"Damaged records were not sent. They are kept in {directory}, in files that end in .damaged")
    if not left and any(directory.glob("[0-9]*.log")):
        note(
            "Other spools in the directory were left alone: their publishers are alive, they belong to another topic "
            "prefix, or they can't be read"
        )
    return FAILED if left or stats.failed or stats.set_aside else DONE


async def _drain(settings: Settings, directory: Path, timeout: float) -> "tuple[int, PublisherStats]":
    async with publishing(settings, spool=directory) as publisher:
        left = publisher.stats().buffered
        while left and (now := await publisher.flush(timeout)) < left:
            left = now
        return left, publisher.stats()
