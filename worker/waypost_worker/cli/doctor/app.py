"""``waypost doctor``: is everything there that the promise rests on?"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from waypost_worker.cli.support.connections import (
    kafka_connection,
    kafka_errors,
    postgres_errors,
    query,
    topic_partitions,
)
from waypost_worker.cli.support.databases import connection_to
from waypost_worker.cli.support.findings import show_findings
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import CommandError
from waypost_worker.cli.support.snapshot_storage import overlap_with_newest
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.findings import Finding


def doctor(*, common: Common = NOTHING_GIVEN) -> int:
    """Check Kafka, Postgres, clocks and keys, and suggest fixes.

    The checks include the zombie test, on a separate topic: the cluster must refuse a former owner. Run this command
    where workers run, with their settings, because it compares these with what the brokers, the server and the role
    allow. The exit code is 1 if there is an error; warnings are not errors.

    As JSON, a finding has the fields `level`, `subject`, `message` and `fix`, which is empty if there is nothing to do.
    `mend` is the previous name of `fix`. It is deprecated, and the next minor version will remove it.

    For example:

      waypost doctor
      waypost doctor -o jsonl | jq -c 'select(.level != "ok")'
    """
    return show_findings(asyncio.run(_examine(common.settings())), common.output)


async def _examine(settings: Settings) -> "list[Finding]":
    from waypost_worker.operations.checks import version_finding

    kafka, postgres = await asyncio.gather(_kafka(settings), _postgres(settings))
    return [version_finding(), *kafka, *postgres, *await _keys(settings)]


async def _keys(settings: Settings) -> "list[Finding]":
    from waypost.errors import SettingsError
    from waypost_worker.config.keys import key_settings
    from waypost_worker.findings import Finding

    try:
        if (found := key_settings(settings)) is None:
            return []
        from waypost.encryption.codec import make_codec
        from waypost_worker.operations.keys import check_keys

        codec = make_codec(found)
    except SettingsError as error:
        return [Finding("error", "keys", str(error), "correct the settings, see 'waypost config show'")]
    return await check_keys(codec, settings.dsns, found.dsn)


async def _kafka(settings: Settings) -> "list[Finding]":
    from waypost_worker.cli.doctor.kafka import check_workers
    from waypost_worker.cli.doctor.transactions import check_transactions
    from waypost_worker.findings import Finding
    from waypost_worker.kafka.broker_clock import broker_clock
    from waypost_worker.kafka.fencing_check import zombie_test
    from waypost_worker.kafka.topics import check_topics
    from waypost_worker.operations.checks import check_brokers, clock_finding
    from waypost_worker.partition.ports import RefusedError

    connection = kafka_connection(settings)
    findings: list[Finding] = []
    try:
        async with kafka_errors(settings):
            findings += await check_brokers(connection)
            findings += await check_topics(connection, settings.topics, settings.session_timeout)
            findings += await check_workers(connection, settings)
            findings += await check_transactions(settings)
            findings.append(clock_finding("kafka", await broker_clock(connection, settings.topics)))
            verdict = await zombie_test(connection, settings.topics)
    except (CommandError, RefusedError) as error:
        fix = "see --bootstrap-servers, and the broker's log"
        return [*findings, Finding("error", settings.bootstrap_servers, str(error), fix)]
    if verdict.fenced:
        return [*findings, Finding("ok", "fencing", f"{verdict.message}, tested in {verdict.seconds:.1f} s")]
    return [*findings, Finding("error", "fencing", verdict.message, "do not run workers on this cluster")]


async def _postgres(settings: Settings) -> "list[Finding]":
    from waypost_worker.cli.doctor.erased import check_erased
    from waypost_worker.cli.doctor.logs import check_logs
    from waypost_worker.cli.doctor.postgres import check_places
    from waypost_worker.postgres.server_check import is_dev_server

    findings: list[Finding] = []
    try:
        count = (await topic_partitions(settings)).get(settings.topics.commands)
    except CommandError:
        count = None  # Kafka's own findings report it
    async with AsyncExitStack() as stack:
        connections: list[Any] = []
        for shard, dsn in enumerate(settings.dsns):
            found, connection = await _database(settings, dsn, count, stack)
            if len(settings.dsns) > 1:
                found = [replace(one, subject=f"shard {shard}: {one.subject}") for one in found]
            findings += found
            connections.append(connection)
        dev = False
        if all(connections):
            findings += await check_places(connections, settings)
            dev = await is_dev_server(connections[0])
    wrong = any(one.level == "error" and one.subject.endswith(("schema", "shards")) for one in findings)
    if wrong or count is None or not all(connections):
        return findings
    logs = await check_logs(settings, count)
    return [
        *findings,
        *logs,
        *await check_erased(settings, count),
        await _authority(settings, dev=dev),
        *await overlap_with_newest(settings),
    ]


async def _authority(settings: Settings, *, dev: bool) -> "Finding":
    from waypost_worker.cli.support.partition_commands import authorities
    from waypost_worker.findings import Finding

    found = await authorities(settings)
    free = [str(partition) for partition, one in found.items() if one.key is None]
    if not free:
        return Finding("ok", "authority", f"{len(found)} partitions are configured by signed commands only")
    if dev:
        return Finding("ok", "authority", "anybody may configure the partitions of a dev server")
    message = f"any agent may change the retention of all sessions in {len(free)} of {len(found)} partitions"
    return Finding("warning", "authority", message, "name an authority: see 'waypost authority set --help'")


async def _database(
    settings: Settings, dsn: str, count: int | None, stack: AsyncExitStack
) -> "tuple[list[Finding], Any]":
    """Return the findings about one database and the connection to it, or None if there is none. ``count`` is the
    number of partitions.
    """
    from waypost_worker.findings import Finding
    from waypost_worker.operations.checks import clock_finding, postgres_clock
    from waypost_worker.postgres.server_check import check_server

    findings: list[Finding] = []
    connection: Any = None
    try:
        async with postgres_errors(settings, dsn):
            connection = await stack.enter_async_context(connection_to(settings, dsn))
            findings += await check_server(
                connection,
                pool_size=settings.postgres_pool_size,
                request_timeout=settings.request_timeout,
                statement_cache=settings.postgres_statement_cache,
            )
            findings.append(clock_finding("postgres", await postgres_clock(connection)))
            findings += await _schema(connection, settings, count)
    except CommandError as error:
        findings.append(Finding("error", "postgres", str(error), "see --postgres-dsn, and the server's log"))
    return findings, connection


async def _schema(connection: Any, settings: Settings, count: int | None) -> "list[Finding]":
    from waypost_worker.cli.doctor.postgres import check_tables
    from waypost_worker.cli.doctor.tenants import check_tenants
    from waypost_worker.findings import Finding
    from waypost_worker.operations.expiry import check_idle_sessions
    from waypost_worker.postgres.migrate import SchemaError, check_schema

    try:
        await check_schema(connection, settings.postgres_schema)
    except SchemaError as error:
        return [Finding("error", "schema", str(error), "run 'waypost migrate'")]
    findings = [Finding("ok", "schema", "up to date"), *await check_tables(connection, settings)]
    counts_of = query("doctor/partition_counts", settings.postgres_schema)
    made_for = {row["partitions"] for row in await connection.fetch(counts_of)}
    if count is not None and made_for - {count}:
        counts = " and ".join(map(str, sorted(made_for)))
        message = f"the database was used with {counts} partitions, the topic has {count}"
        fix = (
            "use the database and the topics that belong together: --topic-prefix, --postgres-dsn; for more "
            "partitions see docs/partitions.md"
        )
        findings.append(Finding("error", "schema", message, fix))
    if not any(one.level == "error" for one in findings):  # a role without rights can't count sessions
        findings += await check_tenants(connection, settings.postgres_schema)
        findings.append(await check_idle_sessions(connection, settings.postgres_schema))
    return findings
