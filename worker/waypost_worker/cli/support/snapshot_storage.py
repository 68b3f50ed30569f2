"""Find snapshots, and check how they overlap with the log, for ``snapshot`` and ``doctor``."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from waypost_worker.cli.support.connections import kafka_client, kafka_connection, kafka_errors
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.logs import command_partitions
from waypost_worker.cli.support.output import USAGE, CommandError
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.kafka.topics import Finding
    from waypost_worker.snapshots.manifest import Manifest, Signing
    from waypost_worker.snapshots.storage import Storage

UnsignedFlag = Annotated[
    bool,
    Parameter(
        name="--allow-unsigned", help="accept a snapshot that is not signed with WAYPOST_SNAPSHOTS_KEY"
    ),
]
AtFlag = Annotated[
    str | None,
    Parameter(name="--at", help="a directory or s3://bucket/path, instead of WAYPOST_SNAPSHOTS"),
]


def storage_of(settings: Settings, at: str | None) -> "Storage":
    """The place that a flag or the settings name."""
    from waypost_worker.snapshots.storage import open_storage

    place = at if at is not None else settings.snapshots
    if place is None:
        raise CommandError("say where snapshots are: --at DIRECTORY, or WAYPOST_SNAPSHOTS", USAGE)
    return open_storage(place)


def signing_of(settings: Settings, allow_unsigned: bool = False) -> "Signing":
    """The key in the settings, if there is one."""
    from waypost_worker.snapshots.manifest import Signing

    key = settings.snapshots_key
    return Signing(None if key is None else key.get_secret_value().encode(), allow_unsigned)


async def overlap(settings: Settings, place: str | None, manifest: "Manifest | None") -> "list[Finding]":
    """Check what the log, the snapshot, the results and the outbox still cover together."""
    from waypost.statements import load_statement
    from waypost_worker.kafka.topics import retention_ms
    from waypost_worker.snapshots.coverage import Latest, findings
    from waypost_worker.snapshots.log_positions import reaches

    owed = load_statement("waypost_worker.snapshots", "oldest_owed", settings.postgres_schema)
    async with connected(settings) as databases:
        rows = [row for database in databases for row in await database.fetch(owed)]
    stored = {row["partition"]: row for row in rows}
    count = await command_partitions(settings)
    kafka = kafka_connection(settings)
    async with kafka_errors(settings):
        retention = await retention_ms(kafka, settings.topics.commands)
        found = await reaches(kafka_client(settings), settings.topics, count, stored, manifest)
    latest = None
    if manifest is not None:
        age = datetime.now(UTC) - datetime.fromisoformat(manifest.taken_at)
        latest = Latest(manifest.name, age.total_seconds())
    return findings(found, None if retention is None else retention / 1000, latest, place)


async def overlap_with_newest(settings: Settings) -> "list[Finding]":
    """The same for ``doctor``, with the newest snapshot of the place in the settings."""
    from waypost_worker.kafka.topics import Finding
    from waypost_worker.snapshots.catalog import newest
    from waypost_worker.snapshots.coverage import LOG
    from waypost_worker.snapshots.restore import check_origin
    from waypost_worker.snapshots.storage import SnapshotError

    place = settings.snapshots
    try:
        manifest = None if place is None else await newest(storage_of(settings, None), signing_of(settings))
        if manifest is not None:
            check_origin(manifest, settings.topics)
        return await overlap(settings, place, manifest)
    except SnapshotError as error:
        return [Finding("error", LOG, str(error), "see WAYPOST_SNAPSHOTS")]
    except CommandError as error:
        return [Finding("error", LOG, f"the overlap can't be determined: {error}", "see the other findings")]
