"""``waypost snapshot``: copies of the state in Postgres, at a stated position of the log, kept elsewhere."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter, validators

from waypost_worker.cli.support.connections import kafka_client, kafka_errors
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.findings import show_findings
from waypost_worker.cli.support.logs import command_partitions
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, confirm, note, show_fields, show_rows
from waypost_worker.cli.support.progress import WorkProgress
from waypost_worker.cli.support.snapshot_storage import (
    AtFlag,
    UnsignedFlag,
    overlap,
    signing_of,
    storage_of,
)
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.snapshots.manifest import Manifest, Signing
    from waypost_worker.snapshots.storage import Storage

app = App(name="snapshot", help="Take, list, check, restore and prune snapshots.")
_Name = Annotated[str, Parameter(help="a snapshot's name, or latest")]
_Offline = Annotated[bool, Parameter(help="skip the checks that need Kafka")]


@app.command
def create(*, at: AtFlag = None, common: Common = NOTHING_GIVEN) -> int:
    """Take a snapshot of all partitions as of one moment (with several databases, one moment of each).

    Workers keep running. A snapshot is valid once its manifest exists, which is written last; an interrupted one does
    not count.

    For example:

      waypost snapshot create --at /var/backups/waypost
      waypost snapshot create --at s3://bucket/waypost -o json
    """
    settings = common.settings()
    storage = storage_of(settings, at)
    show_fields(_about(asyncio.run(_create(settings, storage)), storage), common.output)
    return DONE


async def _create(settings: Settings, storage: "Storage") -> "Manifest":
    from waypost_worker.snapshots.create import create as take

    with _progress("taking", "partitions") as tell:
        async with connected(settings, patiently=True) as databases:
            return await take(
                databases.connections,
                storage,
                settings.topics,
                settings.postgres_schema,
                tell,
                signing=signing_of(settings),
            )


@app.command(name="list")
def list_snapshots(*, at: AtFlag = None, common: Common = NOTHING_GIVEN) -> int:
    """List snapshots, oldest first, including incomplete ones.

    For example:

      waypost snapshot list --at /var/backups/waypost
    """
    from waypost_worker.snapshots.catalog import listed

    settings = common.settings()
    storage = storage_of(settings, at)
    rows = []
    for each in asyncio.run(listed(storage, signing_of(settings))):
        about = {} if each.manifest is None else _about(each.manifest, storage)
        problem = {"problem": each.problem} if each.problem else {}
        rows.append({"name": each.name, "state": each.state, **about, **problem})
    # Its name contains the time.
    columns = ("name", "state", "partitions", "sessions", "checkpoints", "bytes")
    empty = f"{storage.where} holds no snapshots"
    if "://" not in storage.where and not Path(storage.where).exists():
        empty += ": there is no such directory"
    show_rows(rows, common.output, columns, empty, wrap=("state",))
    return DONE


@app.command
def check(
    name: _Name = "latest",
    /,
    *,
    at: AtFlag = None,
    offline: _Offline = False,
    allow_unsigned: UnsignedFlag = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Read all of a snapshot, and see whether it still fits the log.

    Every file is compared with its checksum, and the manifest with its
    signature if a key is set. Then, unless --offline, the log must still
    reach back to the snapshot's positions and contain the record before each
    of them. Exit code 1 if anything is wrong.

    For example:

      waypost snapshot check
      waypost snapshot check 20261124T120000000Z-1a2b3c --at s3://bucket/waypost
    """
    settings = common.settings()
    signing = signing_of(settings, allow_unsigned)
    return show_findings(
        asyncio.run(_check(settings, storage_of(settings, at), name, offline, signing)), common.output
    )


async def _check(
    settings: Settings, storage: "Storage", name: str, offline: bool, signing: "Signing"
) -> list[Any]:
    from waypost_worker.kafka.topics import Finding

    manifest = await _whole(settings, storage, name, signing)
    files = sum(len(part.files) for part in manifest.parts)
    findings = [
        Finding("ok", manifest.name, f"{files} files, {manifest.size} bytes, all as they were written")
    ]
    if manifest.signed and signing.key is None:
        fix = "set WAYPOST_SNAPSHOTS_KEY_FILE"
        findings.append(
            Finding("warning", manifest.name, "it is signed, and no key is set to check that", fix)
        )
    if offline:
        return findings
    await _check_log(settings, manifest)
    findings.append(Finding("ok", manifest.name, f"its positions are in {settings.topics.commands}"))
    return [*findings, *await overlap(settings, storage.where, manifest)]


@app.command
def restore(
    name: _Name = "latest",
    /,
    *,
    at: AtFlag = None,
    offline: _Offline = False,
    allow_unsigned: UnsignedFlag = False,
    dry_run: Annotated[bool, Parameter(help="check everything, and write nothing")] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Fill an empty database, or an empty --schema, with a snapshot.

    Everything is restored in one transaction, or nothing. With several databases, each gets its partitions, even from a
    snapshot of a single database. Any worker, or 'waypost replay --onto-backup', then applies the rest of the log.
    Before that, the command checks that the topics are the snapshot's (unless --offline) and that the database is
    empty.

    For example:

      waypost snapshot restore --at /var/backups/waypost --dry-run
      waypost snapshot restore --postgres-dsn postgresql://new/waypost
    """
    settings = common.settings()
    storage = storage_of(settings, at)
    signing = signing_of(settings, allow_unsigned)
    manifest = asyncio.run(_restore(settings, storage, name, offline, dry_run, signing))
    show_fields({"restored": not dry_run, **_about(manifest, storage)}, common.output)
    if not dry_run:
        note(
            "now start a worker, or run 'waypost replay --onto-backup': both continue where the snapshot ends"
        )
    return DONE


async def _restore(
    settings: Settings, storage: "Storage", name: str, offline: bool, dry_run: bool, signing: "Signing"
) -> "Manifest":
    from waypost_worker.snapshots.catalog import chosen
    from waypost_worker.snapshots.restore import check_origin, check_target
    from waypost_worker.snapshots.restore import restore as fill

    manifest = await chosen(storage, name, signing)
    check_origin(manifest, settings.topics)
    if not offline:
        await _check_log(settings, manifest)
    async with connected(settings, patiently=True) as databases:
        if dry_run:
            for database in databases:
                await check_target(database, manifest, settings.postgres_schema)
            return await _whole(settings, storage, name, signing)
        with _progress("restoring", "files") as tell:
            await fill(databases.connections, storage, manifest, settings.postgres_schema, tell)
    return manifest


@app.command
def prune(
    *,
    keep: Annotated[
        int, Parameter(help="number of newest snapshots to keep", validator=validators.Number(gte=1))
    ],
    at: AtFlag = None,
    dry_run: Annotated[bool, Parameter(help="show what would be removed, and remove nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Remove old snapshots, and what is left of interrupted ones.

    Kept are the newest complete ones, and what was begun after them.

    For example:

      waypost snapshot prune --keep 7 --dry-run
      waypost snapshot prune --keep 7 --yes
    """
    from waypost_worker.snapshots.catalog import listed, superfluous

    settings = common.settings()
    storage = storage_of(settings, at)
    going = superfluous(asyncio.run(listed(storage, signing_of(settings))), keep)
    if going and not dry_run:
        confirm(f"this removes {len(going)} snapshot{'' if len(going) == 1 else 's'} for good", yes)

        async def remove() -> None:
            for each in going:
                await storage.remove(each.name)

        asyncio.run(remove())
    rows = [{"name": each.name, "state": each.state, "removed": not dry_run} for each in going]
    show_rows(rows, common.output, ("name", "state", "removed"), "nothing to remove")
    return DONE


async def _whole(settings: Settings, storage: "Storage", name: str, signing: "Signing") -> "Manifest":
    """The manifest of a snapshot that this version and these topics can use, with all files looked at."""
    from waypost_worker.snapshots.catalog import check_files, chosen
    from waypost_worker.snapshots.restore import check_origin

    manifest = await chosen(storage, name, signing)
    check_origin(manifest, settings.topics)
    with _progress("checking", "files") as tell:
        await check_files(storage, manifest, tell)
    return manifest


@contextmanager
def _progress(doing: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Return a function that is called with how many are done, of how many."""
    with ExitStack() as stack:
        begun: list[WorkProgress] = []

        def tell(done: int, total: int) -> None:
            if not begun:
                begun.append(stack.enter_context(WorkProgress(doing, total, unit)))
            begun[0].advanced(0, done - begun[0].done)

        yield tell


async def _check_log(settings: Settings, manifest: "Manifest") -> None:
    from waypost_worker.snapshots.log_positions import check_in_log

    count = await command_partitions(settings)
    async with kafka_errors(settings):
        await check_in_log(kafka_client(settings), settings.topics, manifest, count)


def _about(manifest: "Manifest", storage: "Storage") -> dict[str, Any]:
    return {
        "name": manifest.name,
        "at": storage.where,
        "taken_at": datetime.fromisoformat(manifest.taken_at),
        "topic": manifest.commands_topic,
        "partitions": len(manifest.parts),
        "sessions": manifest.rows("sessions"),
        "checkpoints": manifest.rows("checkpoints"),
        "rejected_commands": manifest.rows("rejected_commands"),
        "bytes": manifest.size,
        "signed": manifest.signed,
        "positions": {str(part.partition): part.next_offset for part in manifest.parts},
    }
