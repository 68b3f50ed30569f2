"""Checks of ``waypost doctor`` on the command log: is it the one whose commands the databases have applied?"""

from typing import Final

from waypost_worker.cli.support.connections import kafka_errors, postgres_errors
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.logs import command_logs
from waypost_worker.cli.support.output import CommandError
from waypost_worker.config.settings import Settings
from waypost_worker.kafka.topics import Finding
from waypost_worker.partition.acquire import check_log
from waypost_worker.partition.ports import RefusedError
from waypost_worker.postgres.statements import statement

_FIX: Final = "stop whatever deletes or cuts the topic; see docs/runbook.md#waypostpartitionrefused"


async def check_logs(settings: Settings, partitions: int) -> list[Finding]:
    """Compare each partition of the command topic with its row, as an owner does when it acquires the partition."""
    topic = settings.topics.commands
    findings = []
    checked = 0
    try:
        async with (
            kafka_errors(settings),
            postgres_errors(settings),
            connected(settings) as databases,
            command_logs(settings, partitions) as logs,
        ):
            for database in databases:
                for row in await database.fetch(statement("positions", settings.postgres_schema)):
                    if (log := logs.get(row["partition"])) is None:
                        continue
                    checked += 1
                    try:
                        await check_log(log, row["next_offset"], row["anchor"])
                    except RefusedError as error:
                        findings.append(Finding("error", f"{topic}/{row['partition']}", str(error), _FIX))
    except CommandError as error:
        return [*findings, Finding("error", topic, str(error), "see --bootstrap-servers and --postgres-dsn")]
    if findings:
        return findings
    return [Finding("ok", topic, f"{checked} partitions hold the commands that the database has applied")]
