"""What may still hold bytes of an erased session, where, and until when."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from waypost_worker.cli.support.connections import kafka_connection, kafka_errors, query
from waypost_worker.cli.support.databases import Databases
from waypost_worker.cli.support.logs import command_logs, oldest_record_at
from waypost_worker.cli.support.snapshot_storage import signing_of, storage_of
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.snapshots.manifest import Manifest
    from waypost_worker.snapshots.storage import Storage

COLUMNS: Final = ("where", "what", "since", "until", "remedy")
_MOST_COPIES: Final = 100
_OWNERS_RENEW: Final = timedelta(hours=12)
_LOG_REMEDY: Final = (
    "lower the topic's retention.ms; with encryption, what is left has no key ('waypost keys --help')"
)
_UNSEEN: Final = "not visible from here"


@dataclass(frozen=True, slots=True)
class Remaining:
    """A place that may still hold bytes of the session.

    ``since`` is the earliest time they can be of. ``until`` is when the last of them are gone; None if that can't be
    told, or if nothing removes them.
    """

    where: str
    what: str
    remedy: str
    since: datetime | None = None
    until: datetime | None = None

    def for_programs(self) -> dict[str, Any]:
        """Return the fields in the order in which people read them."""
        fields = asdict(self)
        return {name: fields[name] for name in COLUMNS}


@dataclass(frozen=True, slots=True)
class Erasure:
    """A session as the search for its bytes needs it. ``owed`` entries of the outbox may hold a result of it.

    ``first`` is when its first command was recorded, None if it had none, and ``last`` when the last one was that may
    have had content: the erasure.
    """

    session: str
    partition: int
    first: datetime | None
    last: datetime
    owed: int = 0
    unattributed: int = 0


async def remaining(settings: Settings, databases: Databases, erasure: Erasure) -> list[Remaining]:
    """Return all places, those that can be seen first."""
    return [
        *await _in_topics(settings, erasure),
        *await _in_postgres(settings, databases, erasure),
        *[one async for one in _in_snapshots(settings, erasure)],
        Remaining(
            "backups",
            f"database backups, WAL archives and replicas of that time, {_UNSEEN}",
            "let them expire",
        ),
        Remaining(
            "spools", f"unsent commands on agents' disks, {_UNSEEN}", "they are rejected, and stay in the log"
        ),
        Remaining(
            "subscribers",
            f"what they stored, and dead-letter topics, {_UNSEEN}",
            "handle session.erased there",
        ),
    ]


async def _in_topics(settings: Settings, erasure: Erasure) -> list[Remaining]:
    topics, partition = settings.topics, erasure.partition
    async with kafka_errors(settings):
        async with command_logs(settings, partition + 1) as logs:
            log_start = await oldest_record_at(logs[partition])
        places = [
            await _in_topic(settings, topics.commands, "its commands", erasure, erasure.last, log_start),
            # Results come after their commands, how long after depends on the worker: the last are out by now.
            await _in_topic(settings, topics.results, "its results", erasure, datetime.now(UTC)),
        ]
    return [one for one in places if one.until is None or one.until > datetime.now(UTC)]


async def _in_topic(
    settings: Settings,
    topic: str,
    what: str,
    erasure: Erasure,
    last: datetime,
    log_start: datetime | None = None,
) -> Remaining:
    """Return what a topic may still hold, the ``last`` of it written then."""
    from waypost_worker.kafka.topics import kept_ms
    from waypost_worker.partition.ports import RefusedError

    where = f"{topic}/{erasure.partition}"
    bounds = [moment for moment in (erasure.first, log_start) if moment is not None]
    try:
        milliseconds = await kept_ms(kafka_connection(settings), topic)
    except RefusedError:
        remedy = "give this login DescribeConfigs on the topic, to learn until when"
        return Remaining(where, what, remedy, max(bounds, default=None))
    if milliseconds is None:
        remedy = f"retention.ms=-1 keeps them indefinitely: {_LOG_REMEDY}"
        return Remaining(where, what, remedy, max(bounds, default=None))
    kept = timedelta(milliseconds=milliseconds)
    return Remaining(where, what, "none needed", max([*bounds, datetime.now(UTC) - kept]), last + kept)


async def _in_postgres(settings: Settings, databases: Databases, erasure: Erasure) -> list[Remaining]:
    found = []
    if erasure.owed:
        what = f"{erasure.owed} results that were emitted, one of which may be of a rollback"
        until = datetime.now(UTC) + _OWNERS_RENEW
        found.append(Remaining("outbox", what, "the partition's next batch removes them", None, until))
    if erasure.unattributed:
        what = (
            f"{erasure.unattributed} rejected commands without a session id, which may have been meant for it"
        )
        found.append(Remaining("rejected commands", what, "see 'waypost rejected list' and 'purge'"))
    own = settings.postgres_schema
    for database in databases:
        for row in await database.fetch(query("erase/copies", own), erasure.session, _MOST_COPIES):
            name, count = row["session_id"], row["checkpoints"]
            what = f"{count} checkpoint{'' if count == 1 else 's'} copied or forked from it"
            found.append(Remaining(f"session {name}", what, f"'waypost erase {name}', if they are to go too"))
        for row in await database.fetch(query("erase/schemas"), own):
            if await database.fetchval(query("erase/in_schema", row["name"]), erasure.session):
                remedy = f"drop schema {row['name']} cascade, if nothing uses it"
                found.append(Remaining(f"schema {row['name']}", "a copy, such as a replay builds", remedy))
    remedy = "VACUUM the tables, and CHECKPOINT; pg_stat_user_tables says when autovacuum came by"
    what = "its rows in data files until they are vacuumed, and in WAL until it is recycled"
    found.append(Remaining("Postgres files", what, remedy))
    return found


async def _in_snapshots(settings: Settings, erasure: Erasure) -> AsyncIterator[Remaining]:
    from waypost_worker.snapshots.catalog import listed
    from waypost_worker.snapshots.storage import SnapshotError

    if settings.snapshots is None:
        yield Remaining(
            "snapshots", f"no place is set, so they are {_UNSEEN}", "set WAYPOST_SNAPSHOTS and run this again"
        )
        return
    storage = storage_of(settings, None)
    try:
        for each in await listed(storage, signing_of(settings)):
            where = f"snapshot {each.name}"
            if each.manifest is None:
                what = each.problem or "it was never completed, and may hold anything"
                yield Remaining(where, what, "'waypost snapshot prune', or delete it")
            elif await _holds(storage, each.manifest, erasure):
                taken = datetime.fromisoformat(each.manifest.taken_at)
                yield Remaining(
                    where, f"its rows of {taken:%Y-%m-%d}", "'waypost snapshot prune'", erasure.first
                )
    except SnapshotError as error:
        yield Remaining(
            "snapshots", f"they can't be read: {error}", "correct WAYPOST_SNAPSHOTS and run this again"
        )


async def _holds(storage: "Storage", manifest: "Manifest", erasure: Erasure) -> bool:
    """Return whether a snapshot was taken while the session had rows."""
    from waypost_worker.recovery.shares import Share, spread_of
    from waypost_worker.snapshots.rows import SnapshotRows

    rows = SnapshotRows(storage, manifest, erasure.partition)
    spread = spread_of(erasure.session.encode())
    share = Share(spread, spread + 1)
    async for session in rows.sessions(share):
        if session.session_id == erasure.session:
            return session.erased_at is None
    async for rejected in rows.rejected(share):
        if rejected.session_id == erasure.session and rejected.value:
            return True
    return False


def shown(found: Sequence[Remaining]) -> list[dict[str, Any]]:
    """Return the rows of a table, with what can't be told in words."""
    return [{**one.for_programs(), "until": one.until or "unknown"} for one in found]
