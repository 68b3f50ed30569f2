"""``waypost doctor``: is everything there that the promise rests on?"""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from waypost_worker.cli.common import NOTHING_GIVEN, Common
from waypost_worker.cli.findings import show_findings
from waypost_worker.cli.output import CommandError
from waypost_worker.cli.reach import connected, kafka_connection, kafka_errors, query, topic_partitions
from waypost_worker.cli.snapshot_place import overlap_with_newest
from waypost_worker.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.kafka.topics import Finding

_OLDEST_POSTGRES: Final = 14
# What a crash of the server would lose without them was committed, and may have been emitted.
_DURABILITY: Final = ("fsync", "full_page_writes", "synchronous_commit")


def doctor(*, common: Common = NOTHING_GIVEN) -> int:
    """Check Kafka, the topics and Postgres, and say how to mend them.

    Among the checks is the zombie test, on a topic of its own: this cluster
    must refuse a former owner. Exit code 1 if anything is wrong.

    For example:

      waypost doctor
      waypost doctor -o jsonl | jq -c 'select(.level != "ok")'
    """
    return show_findings(asyncio.run(_examine(common.settings())), common.output)


async def _examine(settings: Settings) -> "list[Finding]":
    kafka, postgres = await asyncio.gather(_kafka(settings), _postgres(settings))
    return [*kafka, *postgres]


async def _kafka(settings: Settings) -> "list[Finding]":
    from waypost_worker.kafka.topics import Finding, check_topics
    from waypost_worker.kafka.zombie import zombie_test
    from waypost_worker.partition.ports import RefusedError

    connection = kafka_connection(settings)
    findings: list[Finding] = []
    try:
        async with kafka_errors(settings):
            findings += await check_topics(connection, settings.topics)
            verdict = await zombie_test(connection, settings.topics)
    except (CommandError, RefusedError) as error:
        mend = "see --bootstrap-servers, and the broker's log"
        return [*findings, Finding("error", settings.bootstrap_servers, str(error), mend)]
    if verdict.fenced:
        return [*findings, Finding("ok", "fencing", f"{verdict.message}, tested in {verdict.seconds:.1f} s")]
    return [*findings, Finding("error", "fencing", verdict.message, "do not run workers on this cluster")]


async def _postgres(settings: Settings) -> "list[Finding]":
    from waypost_worker.kafka.topics import Finding

    findings: list[Finding] = []
    try:
        async with connected(settings) as connection:
            findings += await _server(connection)
            findings += await _schema(connection, settings)
    except CommandError as error:
        findings.append(Finding("error", "postgres", str(error), "see --postgres-dsn, and the server's log"))
    return findings


async def _server(connection: Any) -> "list[Finding]":
    from waypost_worker.kafka.topics import Finding

    version = connection.get_server_version()
    findings = [Finding("ok", "postgres", f"version {version.major}.{version.minor}")]
    if version.major < _OLDEST_POSTGRES:
        mend = f"use PostgreSQL {_OLDEST_POSTGRES} or newer"
        findings = [Finding("error", "postgres", f"version {version.major} is too old", mend)]
    for name in _DURABILITY:
        value = await connection.fetchval("select current_setting($1)", name)
        mend = f"set {name}=on: a crash of the server loses what was committed"
        findings.append(
            Finding("error", "postgres", f"{name}={value}", mend)
            if value == "off"
            else Finding("ok", "postgres", f"{name}={value}")
        )
    encoding = await connection.fetchval("select current_setting($1)", "server_encoding")
    findings.append(
        Finding("ok", "postgres", f"server_encoding={encoding}")
        if encoding == "UTF8"
        else Finding(
            "error", "postgres", f"server_encoding={encoding}", "make the database with encoding UTF8"
        )
    )
    return findings


async def _schema(connection: Any, settings: Settings) -> "list[Finding]":
    from waypost_worker.kafka.topics import Finding
    from waypost_worker.postgres.migrate import SchemaError, check_schema

    try:
        await check_schema(connection, settings.postgres_schema)
    except SchemaError as error:
        return [Finding("error", "schema", str(error), "run 'waypost migrate'")]
    findings = [Finding("ok", "schema", "up to date")]
    try:
        count = (await topic_partitions(settings)).get(settings.topics.commands)
    except CommandError:
        return findings  # Kafka's own findings say so
    counts_of = query("partition_counts", settings.postgres_schema)
    made_for = {row["partitions"] for row in await connection.fetch(counts_of)}
    if count is not None and made_for - {count}:
        counts = " and ".join(map(str, sorted(made_for)))
        message = f"the database was used with {counts} partitions, the topic has {count}"
        mend = "use the database and the topics that belong together: --topic-prefix, --postgres-dsn"
        findings.append(Finding("error", "schema", message, mend))
        return findings
    return [*findings, *await overlap_with_newest(settings)] if count is not None else findings
