"""Check erased sessions for ``waypost doctor``: whether they are still empty, and how old the oldest byte of one is."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from waypost.errors import EncryptionError
from waypost_worker.cli.support.connections import kafka_connection, kafka_errors, postgres_errors, query
from waypost_worker.cli.support.databases import Databases, connected
from waypost_worker.cli.support.logs import command_logs, oldest_record_at
from waypost_worker.cli.support.output import CommandError
from waypost_worker.config.keys import key_settings
from waypost_worker.config.settings import Settings
from waypost_worker.findings import Finding

_SUBJECT: Final = "erased sessions"
_PAGE: Final = 500
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class _InLog(NamedTuple):
    """Erased sessions of a partition whose commands its log may still hold. ``oldest`` is the earliest of these."""

    partition: int
    sessions: int
    session_id: str
    oldest: datetime
    erased_at: datetime


async def check_erased(settings: Settings, partitions: int) -> list[Finding]:
    """Look for erased sessions that hold something again, and for what the command topic still holds of others."""
    topic = settings.topics.commands
    try:
        async with kafka_errors(settings), postgres_errors(settings), connected(settings) as databases:
            sql = query("doctor/tombstones", settings.postgres_schema)
            rows = [await database.fetchrow(sql) for database in databases]
            found = (
                await _in_log(settings, databases, partitions) if any(row["sessions"] for row in rows) else []
            )
            kept = await _kept(settings) if found else None
            keys = (
                await _keys_that_came_back(settings, databases)
                if any(row["sessions"] for row in rows)
                else []
            )
    except CommandError as error:
        return [Finding("error", _SUBJECT, str(error), "see --bootstrap-servers and --postgres-dsn")]
    sessions = sum(row["sessions"] for row in rows)
    findings = [_remains(topic, sessions, found, kept)]
    if holding := sum(row["holding"] for row in rows):
        message = f"{holding:,} of {sessions:,} hold checkpoints or a policy again"
        fix = "finish the upgrade of all workers, run 'waypost verify', and erase them again"
        findings.append(Finding("error", _SUBJECT, message, fix))
    return [*findings, *keys]


async def _keys_that_came_back(settings: Settings, databases: Databases) -> list[Finding]:
    """Look for erased sessions that have a key: then an older key store was restored."""
    if (named := key_settings(settings)) is None:
        return []
    from waypost.encryption.settings import make_store

    store, sql = make_store(named), query("doctor/erased_after", settings.postgres_schema)
    back: list[str] = []
    try:
        for database in databases:
            last: tuple[datetime, str] = (_LONG_AGO, "")
            while rows := await database.fetch(sql, *last, _PAGE):
                last = rows[-1]["erased_at"], rows[-1]["session_id"]
                found = await store.find([row["session_id"] for row in rows])
                back += [key.session_id for key in found.values() if not key.erased]
    except EncryptionError:
        return []  # check_keys reports the error
    finally:
        await store.close()
    if not back:
        return []
    message = f"{len(back):,} of them have a key again, such as {back[0]!r}: an older key store was restored"
    return [Finding("error", _SUBJECT, message, f"run 'waypost erase' for each again, as for {back[0]}")]


async def _kept(settings: Settings) -> timedelta | None:
    """Return how long the command topic keeps a record at the most; zero if this login may not ask."""
    from waypost_worker.kafka.topics import kept_ms
    from waypost_worker.partition.ports import RefusedError

    try:
        kept = await kept_ms(kafka_connection(settings), settings.topics.commands)
    except RefusedError:
        return timedelta()
    return None if kept is None else timedelta(milliseconds=kept)


async def _in_log(settings: Settings, databases: Databases, partitions: int) -> list[_InLog]:
    sql = query("doctor/erased_since", settings.postgres_schema)
    found = []
    async with command_logs(settings, partitions) as logs:
        for partition, log in logs.items():
            begins = await oldest_record_at(log)
            if begins is None:
                continue
            row: Any = await databases.of(partition).fetchrow(sql, partition, begins)
            if row["sessions"]:
                oldest = max(begins, row["oldest"])
                found.append(_InLog(partition, row["sessions"], row["session_id"], oldest, row["newest"]))
    return found


def _remains(topic: str, sessions: int, found: list[_InLog], kept: timedelta | None) -> Finding:
    if not found:
        none = (
            f"there are {sessions:,}, and the command topic holds none of their commands"
            if sessions
            else "there are none"
        )
        return Finding("ok", _SUBJECT, none)
    oldest = min(found, key=lambda one: one.oldest)
    in_log = sum(one.sessions for one in found)
    message = (
        f"there are {sessions:,}, and {topic} may hold commands of {in_log:,} of them; the oldest byte is of "
        f"{oldest.session_id!r} in partition {oldest.partition}, from {oldest.oldest:%Y-%m-%d %H:%M}"
    )
    if kept is None:
        fix = (
            f"set retention.ms on {topic}, with snapshots that go further (docs/snapshots.md); encrypted sessions need "
            "nothing, for their keys are gone"
        )
        return Finding("warning", _SUBJECT, f"{message}, and nothing removes it", fix)
    if not kept:
        fix = f"give this login DescribeConfigs on {topic}"
        return Finding("warning", _SUBJECT, f"{message}, and how long it keeps them is unknown", fix)
    last = max(one.erased_at for one in found) + kept
    return Finding(
        "ok", _SUBJECT, f"{message}, and the last are gone by {last.astimezone(UTC):%Y-%m-%d %H:%M}"
    )
