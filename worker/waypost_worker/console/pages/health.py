"""The state of a deployment: lag, workers, refusals, partition by partition. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class PartitionHealth:
    """A partition as Postgres and Kafka know it. ``end`` and ``lag`` are None while Kafka is unreachable.

    ``waiting_seconds`` is the age of the next command, None if none waits or it could not be read.
    """

    partition: int
    next_offset: int
    end: int | None
    epoch: int
    emitted: int
    outbox_bytes: int
    blocked_offset: int | None
    waiting_seconds: float | None = None

    def waiting_since(self, recorded: int | None, now: float) -> "PartitionHealth":
        """Return it with the age of its next command, recorded in ms since 1970, at ``now`` in seconds since then."""
        return self if recorded is None else replace(self, waiting_seconds=max(0.0, now - recorded / 1000))

    @property
    def lag(self) -> int | None:
        """Records from where Postgres stands to the end of the log."""
        return None if self.end is None else max(0, self.end - self.next_offset)

    @property
    def blocked(self) -> bool:
        """Return whether owners fail at a command that is still the next one."""
        return self.blocked_offset is not None and self.blocked_offset >= self.next_offset


@dataclass(frozen=True, slots=True)
class Health:
    """Deployment at a glance. ``workers`` is None if Kafka does not say; each error says what could not be asked."""

    partitions: tuple[PartitionHealth, ...]
    workers: int | None
    versions: Mapping[str, int]
    rejected: tuple[tuple[str, int], ...]
    databases: int
    kafka_error: str | None = None
    workers_error: str | None = None
    live_error: str | None = None

    @property
    def lag(self) -> int | None:
        """Of all partitions together."""
        lags = [one.lag for one in self.partitions]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    @property
    def waiting_seconds(self) -> float | None:
        """Age of the oldest command that waits; None if none does or that is unknown."""
        ages = [one.waiting_seconds for one in self.partitions if one.waiting_seconds is not None]
        return max(ages, default=None)

    @property
    def blocked(self) -> tuple[PartitionHealth, ...]:
        """Partitions that are refused."""
        return tuple(one for one in self.partitions if one.blocked)

    @property
    def rejected_count(self) -> int:
        """Commands that were refused in the last 24 hours."""
        return sum(count for _, count in self.rejected)

    @property
    def advice(self) -> str | None:
        """The first thing to do, None if all is well."""
        if self.kafka_error is not None:
            return "Kafka is not reachable. Commands wait with their agents until it is back."
        if self.workers == 0 and self.lag:
            return f"No worker is running, and commands wait ({self.lag:,}). Start one with: waypost worker"
        if self.blocked:
            one = self.blocked[0]
            return (
                f"Partition {one.partition} is refused at the command at offset {one.blocked_offset}. See "
                "docs/runbook.md#waypostpartitionrefused"
            )
        return None


def partition_health(
    rows: Sequence[Any], ends: Mapping[int, int] | None, count: int
) -> list[PartitionHealth]:
    """Return each partition, including those that no worker has ever had."""
    known = {row["partition"]: row for row in rows}
    found = []
    for partition in range(max(count, max(known, default=-1) + 1)):
        row = known.get(partition)
        found.append(
            PartitionHealth(
                partition,
                0 if row is None else row["next_offset"],
                None if ends is None else ends.get(partition),
                0 if row is None else row["epoch"],
                -1 if row is None else row["emitted"],
                0 if row is None else row["outbox_bytes"],
                None if row is None else row["blocked_offset"],
            )
        )
    return found
