"""What ``waypost doctor`` asks of a Kafka cluster besides its topics: releases of brokers, versions of workers."""

from collections import Counter
from collections.abc import Sequence

from waypost import __version__
from waypost_worker.kafka.broker_versions import BrokerVersion, broker_versions, release
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.group_members import UNKNOWN_VERSION, worker_versions
from waypost_worker.kafka.topics import Finding
from waypost_worker.partition.ports import RefusedError


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


async def check_workers(connection: Connection, group_id: str) -> list[Finding]:
    """Versions of the workers in the group, beside this one."""
    try:
        return worker_findings(await worker_versions(connection, group_id), group_id)
    except RefusedError as error:
        mend = f"give it Describe on the group {group_id!r}, to see which versions of workers are at work"
        return [Finding("warning", "workers", str(error), mend)]


def worker_findings(found: Counter[str], group_id: str) -> list[Finding]:
    """One version, and this one; or what to do."""
    if not found:
        return [Finding("ok", "workers", f"none in the group {group_id!r} now")]
    shown = ", ".join(f"{count} of version {version}" for version, count in sorted(found.items()))
    if len(found) > 1:
        mend = "finish the upgrade (docs/runbook.md), before clients are upgraded"
        return [Finding("warning", "workers", f"{shown}, in the group {group_id!r}", mend)]
    if set(found) - {__version__, UNKNOWN_VERSION}:
        mend = "use the command line of the workers' version: it may know another schema and other commands"
        message = f"{shown} in the group {group_id!r}, this is {__version__}"
        return [Finding("warning", "workers", message, mend)]
    return [Finding("ok", "workers", f"{shown} in the group {group_id!r}")]
