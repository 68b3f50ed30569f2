"""What ``waypost doctor`` asks of a Kafka cluster besides its topics: brokers, workers, and what waits for them."""

from collections import Counter
from collections.abc import Sequence

from waypost import __version__
from waypost_worker.cli.support.connections import kafka_errors, postgres_errors
from waypost_worker.cli.support.databases import Databases, connected
from waypost_worker.cli.support.logs import command_logs, command_partitions, waiting_in
from waypost_worker.cli.support.output import CommandError
from waypost_worker.config.settings import Settings
from waypost_worker.findings import Finding
from waypost_worker.kafka.broker_versions import BrokerVersion, broker_versions, release
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.group_members import UNKNOWN_VERSION, worker_versions
from waypost_worker.partition.ports import RefusedError
from waypost_worker.postgres.statements import statement


async def check_brokers(connection: Connection) -> list[Finding]:
    """Releases of the brokers, and of the cluster."""
    return broker_findings(await broker_versions(connection))


def broker_findings(brokers: Sequence[BrokerVersion]) -> list[Finding]:
    """Each broker's release; whether they are one, and whether an upgrade was finished."""
    findings = [_broker(broker) for broker in brokers]
    releases = sorted({release(broker.newest) for broker in brokers if broker.newest is not None})
    if len(releases) > 1:
        message = f"brokers of Kafka {' and '.join(releases)} side by side"
        findings.append(Finding("warning", "brokers", message, "finish the upgrade of the cluster"))
    levels = [(broker.in_force, broker.newest) for broker in brokers if broker.in_force and broker.newest]
    if len(releases) == 1 and levels:
        in_force, newest = min(levels)
        if release(in_force) != release(newest):
            message = f"the brokers are of Kafka {release(newest)}, the cluster acts as {release(in_force)}"
            mend = (
                f"kafka-features.sh upgrade --release-version {release(newest)}, once no broker is to go back"
            )
            findings.append(Finding("warning", "brokers", message, mend))
        else:
            findings.append(Finding("ok", "brokers", f"all of Kafka {release(newest)}, which is in force"))
    return findings


def _broker(broker: BrokerVersion) -> Finding:
    subject = f"broker {broker.node}"
    if not broker.recovers:
        message = "older than Kafka 2.5: a producer that lost its epoch can't get a new one"
        return Finding("error", subject, message, "use Kafka 2.5 or newer")
    if broker.newest is None:
        return Finding(
            "ok", subject, "Kafka 2.5 or newer, without metadata.version: ZooKeeper, or no Apache Kafka"
        )
    return Finding("ok", subject, f"Kafka {release(broker.newest)}")


async def check_workers(connection: Connection, settings: Settings) -> list[Finding]:
    """Check the versions of the workers in the group, beside this one; and if there are none, that nothing waits."""
    try:
        found = await worker_versions(connection, settings.group_id)
    except RefusedError as error:
        mend = f"give it Describe on the group {settings.group_id!r}, to see which versions of workers are running"
        return [Finding("warning", "workers", str(error), mend)]
    return worker_findings(found, settings.group_id, None if found else await waiting_commands(settings))


def worker_findings(found: Counter[str], group_id: str, waiting: int | None = None) -> list[Finding]:
    """One version, and this one; or what to do. ``waiting`` commands matter if no worker runs, None if unknown."""
    if not found:
        return [_no_worker(group_id, waiting)]
    shown = ", ".join(f"{count} of version {version}" for version, count in sorted(found.items()))
    if len(found) > 1:
        mend = "finish the upgrade (docs/runbook.md), before clients are upgraded"
        return [Finding("warning", "workers", f"{shown}, in the group {group_id!r}", mend)]
    if set(found) - {__version__, UNKNOWN_VERSION}:
        mend = "use the command line of the workers' version: it may know another schema and other commands"
        message = f"{shown} in the group {group_id!r}, this is {__version__}"
        return [Finding("warning", "workers", message, mend)]
    return [Finding("ok", "workers", f"{shown} in the group {group_id!r}")]


def _no_worker(group_id: str, waiting: int | None) -> Finding:
    none = f"no worker is running in the group {group_id!r}"
    if waiting is None:
        mend = "fix the other findings, and start one with 'waypost worker'"
        return Finding("warning", "workers", f"{none}, and how many commands wait can't be told", mend)
    if waiting == 0:
        return Finding("ok", "workers", f"{none}, and no command waits")
    commands = f"{waiting:,} commands wait" if waiting > 1 else "1 command waits"
    return Finding("error", "workers", f"{none}, and {commands}", "start one with 'waypost worker'")


async def waiting_commands(settings: Settings) -> int | None:
    """Return how many commands are in the topic and not applied yet; None if that can't be told now."""
    try:
        async with kafka_errors(settings), postgres_errors(settings):
            partitions = await command_partitions(settings)
            logs_of = command_logs(settings, partitions)
            async with connected(settings) as databases, logs_of as logs:
                # Ends before positions: what is applied meanwhile is not taken for more than there was.
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
