"""``waypost doctor``: is everything there that the promise rests on?"""

from dataclasses import asdict
from typing import Any

from waypost_worker.cli.common import Common, run
from waypost_worker.cli.output import DONE, FAILED, show_rows
from waypost_worker.kafka.topics import Finding
from waypost_worker.settings import Settings


def doctor(*, common: Common | None = None) -> int:
    """Check Kafka (with the zombie test), the topics and Postgres; say how to mend what is wrong.

    Exit code 1 if anything is wrong.

    For example:

      waypost doctor
    """
    common = common or Common()
    findings = run(_examine(common.settings()))
    show_rows(
        [asdict(found) for found in findings], common.output, ("level", "subject", "message", "mend"), ""
    )
    return FAILED if any(found.level == "error" for found in findings) else DONE


async def _examine(settings: Settings) -> list[Finding]:
    return [*await _kafka(settings), *await _postgres(settings)]


async def _kafka(settings: Settings) -> list[Finding]:
    from waypost_worker.kafka.connection import Connection
    from waypost_worker.kafka.topics import check_topics
    from waypost_worker.kafka.zombie import zombie_test
    from waypost_worker.partition.ports import UnavailableError

    connection = Connection(settings.bootstrap_servers, settings.request_timeout)
    try:
        findings = await check_topics(connection, settings.topics)
        verdict = await zombie_test(connection, settings.topics)
    except UnavailableError as error:
        mend = f"is Kafka at {settings.bootstrap_servers}? See --bootstrap-servers"
        return [Finding("error", "kafka", str(error), mend)]
    message = f"{verdict.message} (tested in {verdict.seconds:.1f} s)"
    return [*findings, Finding("ok" if verdict.fenced else "error", "fencing", message)]


async def _postgres(settings: Settings) -> list[Finding]:
    import asyncpg

    from waypost_worker.postgres.migrate import SchemaError, check_schema

    try:
        connection: Any = await asyncpg.connect(
            settings.postgres_dsn.get_secret_value(), timeout=settings.request_timeout
        )
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        return [Finding("error", "postgres", str(error) or type(error).__name__, "see --postgres-dsn")]
    try:
        version = connection.get_server_version()
        findings = [
            Finding("ok", "postgres", f"version {version.major}.{version.minor}")
            if version.major >= 14
            else Finding("error", "postgres", f"version {version.major}", "use PostgreSQL 14 or newer")
        ]
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            value = await connection.fetchval("select current_setting($1)", name)
            safe = value != "off"
            mend = "" if safe else f"set {name}=on: a crash of the server loses what was committed"
            findings.append(Finding("ok" if safe else "error", "postgres", f"{name}={value}", mend))
        try:
            await check_schema(connection)
            findings.append(Finding("ok", "schema", "up to date"))
        except SchemaError as error:
            findings.append(Finding("error", "schema", str(error), "run 'waypost migrate'"))
    finally:
        await connection.close()
    return findings
