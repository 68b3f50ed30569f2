"""Checks of ``waypost doctor`` on a Kafka cluster: its workers, and commands that wait for them."""

from waypost_worker.cli.support.connections import kafka_errors, postgres_errors
from waypost_worker.cli.support.databases import Databases, connected
from waypost_worker.cli.support.logs import command_logs, command_partitions, waiting_in
from waypost_worker.cli.support.output import CommandError
from waypost_worker.config.settings import Settings
from waypost_worker.findings import Finding
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.group_members import worker_versions
from waypost_worker.operations.checks import worker_findings
from waypost_worker.partition.ports import RefusedError
from waypost_worker.postgres.statements import statement


async def check_workers(connection: Connection, settings: Settings) -> list[Finding]:
    """Check the versions of the workers in the group, compared with this one; if there are none, check that nothing
    waits.
    """
    try:
        found = await worker_versions(connection, settings.group_id)
    except RefusedError as error:
        fix = f"give it Describe on the group {settings.group_id!r}, to see which versions of workers are running"
        return [Finding("warning", "workers", str(error), fix)]
    return worker_findings(found, settings.group_id, None if found else await waiting_commands(settings))


async def waiting_commands(settings: Settings) -> int | None:
    """Return how many commands are in the topic and not applied yet; None if that is unknown."""
    try:
        async with kafka_errors(settings), postgres_errors(settings):
            partitions = await command_partitions(settings)
            logs_of = command_logs(settings, partitions)
            async with connected(settings) as databases, logs_of as logs:
                # Ends before positions, so that commands applied in between do not make the count too high.
                bounds = {partition: await log.bounds() for partition, log in logs.items()}
                applied = await _positions(settings, databases)
                counts = [
                    await waiting_in(
                        log, max(applied.get(partition, 0), bounds[partition][0]), bounds[partition][1]
                    )
                    for partition, log in logs.items()
                ]
    except (CommandError, RefusedError):
        return None
    return sum(counts)


async def _positions(settings: Settings, databases: Databases) -> dict[int, int]:
    """Return the next offset of each partition that was ever owned."""
    sql = statement("positions", settings.postgres_schema)
    return {
        row["partition"]: row["next_offset"] for database in databases for row in await database.fetch(sql)
    }
