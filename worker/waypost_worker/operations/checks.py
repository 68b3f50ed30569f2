"""The checks of a deployment by ``waypost doctor`` and the console: brokers, workers, clocks.

Settings of topics and servers are checked by ``kafka.topics`` and ``postgres.server_check``, as at each start of a
worker.
"""

import platform
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from waypost import __version__
from waypost_worker.findings import Finding
from waypost_worker.kafka.broker_clock import ClockReading
from waypost_worker.kafka.broker_versions import BrokerVersion, broker_versions, release
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.group_members import UNKNOWN_VERSION
from waypost_worker.postgres.statements import statement

# A clock with a larger error makes latencies, ages and alerts wrong.
_CLOCK_SECONDS: Final = 1.0


def version_finding() -> Finding:
    """Return the versions of what runs this."""
    named = ", ".join(f"{name} {version(name)}" for name in ("waypost", "aiokafka", "asyncpg"))
    return Finding("ok", "versions", f"{named}, Python {platform.python_version()}")


def clock_finding(subject: str, read: ClockReading) -> Finding:
    """Return whether a server's clock agrees with this machine's."""
    way = "ahead of" if read.ahead > 0 else "behind"
    message = f"its clock is {abs(read.ahead):.3f} s {way} this machine's, give or take {read.within:.3f}"
    if abs(read.ahead) <= _CLOCK_SECONDS + read.within:
        return Finding("ok", subject, message)
    fix = "let both follow a time server: latencies and ages are wrong by as much"
    return Finding("warning", subject, message, fix)


async def check_brokers(connection: Connection) -> list[Finding]:
    """Releases of the brokers, and of the cluster."""
    return broker_findings(await broker_versions(connection))


def broker_findings(brokers: Sequence[BrokerVersion]) -> list[Finding]:
    """Each broker's release; whether they are one, and whether an upgrade was finished."""
    findings = [_broker(broker) for broker in brokers]
    releases = sorted({release(broker.newest) for broker in brokers if broker.newest is not None})
    if len(releases) > 1:
        message = f"brokers of Kafka {' and '.join(releases)} are mixed"
        findings.append(Finding("warning", "brokers", message, "finish the upgrade of the cluster"))
    levels = [(broker.in_force, broker.newest) for broker in brokers if broker.in_force and broker.newest]
    if len(releases) == 1 and levels:
        in_force, newest = min(levels)
        if release(in_force) != release(newest):
            message = f"the brokers are of Kafka {release(newest)}, the cluster acts as {release(in_force)}"
            fix = (
                f"kafka-features.sh upgrade --release-version {release(newest)}, once no broker will be "
                "downgraded"
            )
            findings.append(Finding("warning", "brokers", message, fix))
        else:
            findings.append(
                Finding("ok", "brokers", f"all of Kafka {release(newest)}, with its features enabled")
            )
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


def worker_findings(found: Counter[str], group_id: str, waiting: int | None = None) -> list[Finding]:
    """Return whether the workers have one version, and it is this one.

    ``waiting`` commands matter if no worker runs; None if that is unknown.
    """
    if not found:
        return [_no_worker(group_id, waiting)]
    shown = ", ".join(f"{count} of version {version}" for version, count in sorted(found.items()))
    if len(found) > 1:
        fix = "finish the upgrade (docs/runbook.md), before clients are upgraded"
        return [Finding("warning", "workers", f"{shown}, in the group {group_id!r}", fix)]
    if set(found) - {__version__, UNKNOWN_VERSION}:
        fix = "use the command line of the workers' version: it may know another schema and other commands"
        message = f"{shown} in the group {group_id!r}, this is {__version__}"
        return [Finding("warning", "workers", message, fix)]
    return [Finding("ok", "workers", f"{shown} in the group {group_id!r}")]


def _no_worker(group_id: str, waiting: int | None) -> Finding:
    none = f"no worker is running in the group {group_id!r}"
    if waiting is None:
        fix = "fix the other findings, and start one with 'waypost worker'"
        return Finding("warning", "workers", f"{none}, and the number of waiting commands is unknown", fix)
    if waiting == 0:
        return Finding("ok", "workers", f"{none}, and no command waits")
    commands = f"{waiting:,} commands wait" if waiting > 1 else "1 command waits"
    return Finding("error", "workers", f"{none}, and {commands}", "start one with 'waypost worker'")


async def postgres_clock(connection: Any) -> ClockReading:
    """Read the server's clock."""
    asked = time.time()
    now: float = (await connection.fetchrow(statement("server_state")))["now"]
    answered = time.time()
    return ClockReading(now - (asked + answered) / 2, (answered - asked) / 2)
