"""Find the places that may still hold bytes of an erased session, and until when."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from waypost_worker.cli.erase.keys import DeletedKey
from waypost_worker.cli.support.connections import kafka_connection, kafka_errors, query
from waypost_worker.cli.support.databases import Databases
from waypost_worker.cli.support.logs import command_partitions, log_maker, oldest_record_at
from waypost_worker.cli.support.snapshot_storage import signing_of, storage_of
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.snapshots.catalog import Listed
    from waypost_worker.snapshots.manifest import Manifest

COLUMNS: Final = ("where", "what", "since", "until", "remedy")
_MOST_COPIES: Final = 100
_OWNERS_RENEW: Final = timedelta(hours=12)
_FOR_EVER_REMEDY: Final = "retention.ms=-1 keeps them indefinitely: lower it, or encrypt (docs/erasure.md)"
_UNSEEN: Final = "not visible from here"


@dataclass(frozen=True, slots=True)
class Remaining:
    """A place that may still hold bytes of the session.

    ``since`` is the earliest time they can be from. ``until`` is when the last of them are gone; None if that is
    unknown, or if nothing removes them.
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


_OUT_OF_SIGHT: Final = (
    Remaining(
        "backups", f"database backups, WAL archives and replicas of that time, {_UNSEEN}", "let them expire"
    ),
    Remaining(
        "spools", f"unsent commands on agents' disks, {_UNSEEN}", "they are rejected, and stay in the log"
    ),
    Remaining(
        "subscribers", f"what they stored, and dead-letter topics, {_UNSEEN}", "handle session.erased there"
    ),
)


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
    key: DeletedKey | None = None
    owed: int = 0
    unattributed: int = 0

    def said(self, what: str) -> str:
        """Return what a place holds, and whether somebody could read it."""
        had_key = self.key is not None and self.key.key_id
        return f"{what}; what was encrypted is unreadable" if had_key else what


class Places:
    """The places of a deployment. Facts that are the same for many sessions are looked up only once."""

    def __init__(self, settings: Settings, databases: Databases) -> None:
        self._settings = settings
        self._databases = databases
        self._kept: dict[str, timedelta | str | None] = {}
        self._log_starts: dict[int, datetime | None] = {}
        self._listed: list[Listed] | None = None
        self._in_snapshot: dict[tuple[str, int], frozenset[str]] = {}

    async def remaining(self, erasure: Erasure) -> list[Remaining]:
        """Return all places that may hold bytes of a session, those that can be seen first."""
        return [
            *await self._in_topics(erasure),
            *await self._in_postgres(erasure),
            *[one async for one in self._in_snapshots(erasure)],
            *_with_keys(erasure),
            *_OUT_OF_SIGHT,
        ]

    async def _in_topics(self, erasure: Erasure) -> list[Remaining]:
        topics, partition = self._settings.topics, erasure.partition
        if partition not in self._log_starts:
            async with kafka_errors(self._settings):
                await command_partitions(self._settings)
                log = log_maker(self._settings, partition)()
                try:
                    self._log_starts[partition] = await oldest_record_at(log)
                finally:
                    await log.close()
        now, log_start = datetime.now(UTC), self._log_starts[partition]
        places = [
            await self._in_topic(topics.commands, "its commands", erasure, erasure.last, log_start),
            # Results come after their commands, how long after depends on the worker: the last are out by now.
            await self._in_topic(topics.results, "its results", erasure, now),
        ]
        return [one for one in places if one.until is None or one.until > now]

    async def _in_topic(
        self, topic: str, what: str, erasure: Erasure, last: datetime, log_start: datetime | None = None
    ) -> Remaining:
        """Return what a topic may still hold. The newest of it was written at ``last``."""
        where, what = f"{topic}/{erasure.partition}", erasure.said(what)
        bounds = [moment for moment in (erasure.first, log_start) if moment is not None]
        kept = await self._kept_in(topic)
        if not isinstance(kept, timedelta):
            return Remaining(where, what, kept or _FOR_EVER_REMEDY, max(bounds, default=None))
        since = max([*bounds, datetime.now(UTC) - kept])
        return Remaining(where, what, "none needed", since, last + kept)

    async def _kept_in(self, topic: str) -> timedelta | str | None:
        """Return how long a topic keeps a record at the most; None if indefinitely, or the reason why it is unknown."""
        from waypost_worker.kafka.topics import kept_ms
        from waypost_worker.partition.ports import RefusedError

        if topic not in self._kept:
            async with kafka_errors(self._settings):
                try:
                    kept = await kept_ms(kafka_connection(self._settings), topic)
                    self._kept[topic] = None if kept is None else timedelta(milliseconds=kept)
                except RefusedError:
                    self._kept[topic] = "give this login DescribeConfigs on the topic, to learn until when"
        return self._kept[topic]

    async def _in_postgres(self, erasure: Erasure) -> list[Remaining]:
        found = []
        if erasure.owed:
            what = f"{erasure.owed} results that were emitted, one of which may be of a rollback"
            until = datetime.now(UTC) + _OWNERS_RENEW
            found.append(Remaining("outbox", what, "the partition's next batch removes them", None, until))
        if erasure.unattributed:
            what = f"{erasure.unattributed} rejected commands without a session id, which may have been meant for it"
            found.append(Remaining("rejected commands", what, "see 'waypost rejected list' and 'purge'"))
        own = self._settings.postgres_schema
        for database in self._databases:
            for row in await database.fetch(query("erase/copies", own), erasure.session, _MOST_COPIES):
                name, count = row["session_id"], row["checkpoints"]
                what = erasure.said(f"{count} checkpoint{'' if count == 1 else 's'} copied or forked from it")
                found.append(
                    Remaining(f"session {name}", what, f"'waypost erase {name}', if they are to go too")
                )
            for row in await database.fetch(query("erase/schemas"), own):
                if await database.fetchval(query("erase/in_schema", row["name"]), erasure.session):
                    remedy = f"drop schema {row['name']} cascade, if nothing uses it"
                    what = erasure.said("a copy, such as a replay builds")
                    found.append(Remaining(f"schema {row['name']}", what, remedy))
        what = "its rows in data files until they are vacuumed, and in WAL until it is recycled"
        remedy = "VACUUM the tables, and CHECKPOINT; pg_stat_user_tables says when autovacuum came by"
        return [*found, Remaining("Postgres files", erasure.said(what), remedy)]

    async def _in_snapshots(self, erasure: Erasure) -> AsyncIterator[Remaining]:
        from waypost_worker.snapshots.catalog import listed
        from waypost_worker.snapshots.storage import SnapshotError

        settings = self._settings
        if settings.snapshots is None:
            what = f"no place is set, so they are {_UNSEEN}"
            yield Remaining("snapshots", what, "set WAYPOST_SNAPSHOTS and run this again")
            return
        try:
            if self._listed is None:
                self._listed = await listed(storage_of(settings, None), signing_of(settings))
            for each in self._listed:
                where = f"snapshot {each.name}"
                if each.manifest is None:
                    what = each.problem or "it was never completed, and may hold anything"
                    yield Remaining(where, what, "'waypost snapshot prune', or delete it")
                elif erasure.session in await self._sessions_in(each.manifest, erasure.partition):
                    taken = datetime.fromisoformat(each.manifest.taken_at)
                    what = erasure.said(f"its rows of {taken:%Y-%m-%d}")
                    yield Remaining(where, what, "'waypost snapshot prune'", erasure.first)
        except SnapshotError as error:
            yield Remaining(
                "snapshots", f"they can't be read: {error}", "see WAYPOST_SNAPSHOTS, and run this again"
            )

    async def _sessions_in(self, manifest: "Manifest", partition: int) -> frozenset[str]:
        """Return the sessions of which a snapshot holds rows."""
        from waypost_worker.recovery.shares import WHOLE
        from waypost_worker.snapshots.rows import SnapshotRows

        key = (manifest.name, partition)
        if key not in self._in_snapshot:
            rows = SnapshotRows(storage_of(self._settings, None), manifest, partition)
            held = {one.session_id async for one in rows.sessions(WHOLE) if one.erased_at is None}
            rejected = {one.session_id async for one in rows.rejected(WHOLE) if one.session_id and one.value}
            self._in_snapshot[key] = frozenset(held | {name for name in rejected if name is not None})
        return self._in_snapshot[key]


def _with_keys(erasure: Erasure) -> list[Remaining]:
    if erasure.key is None or not erasure.key.key_id:
        return []
    from waypost.encryption.codec import REFRESH_SECONDS

    until = erasure.key.deleted_at + timedelta(seconds=REFRESH_SECONDS)
    found = []
    if until > datetime.now(UTC):
        found.append(Remaining("running programs", "its key, in memory", "none needed", None, until))
    what = f"its wrapped key; of {erasure.key.store}, {_UNSEEN}"
    remedy = "keep them for a short time; doctor notices a key that came back"
    return [*found, Remaining("key store backups", what, remedy)]


def shown(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table, with a word for times that are unknown."""
    return [{**one, "until": one["until"] or "unknown"} for one in found]
