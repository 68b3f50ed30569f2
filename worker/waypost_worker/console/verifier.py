"""Compare sessions in Postgres with the log: ``waypost verify``, for one session."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from waypost.wire.topics import Topics, partition_of
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.postgres.verify_rows import Snapshots
from waypost_worker.recovery.shares import Share, spread_of
from waypost_worker.recovery.verify.verification import (
    Verification,
    VerifyOptions,
    VerifyProgress,
    VerifySources,
    shown,
)

_SECONDS: Final = 60.0
_MOST_KEPT: Final = 500


@dataclass(frozen=True, slots=True)
class Verified:
    """Outcome of a comparison. ``position`` is the session's last command that Postgres had applied before it."""

    partition: int
    began: int
    next_offset: int
    position: int
    differences: tuple[str, ...]
    seconds: float


class _Quiet(VerifyProgress):
    @override
    def advanced(self, partition: int, commands: int, next_offset: int) -> None:
        """Nobody watches."""

    @override
    def grow(self, commands: int) -> None:
        """Nobody watches."""


class Verifier:
    """Compares sessions with the log, one at a time, and remembers what was found."""

    def __init__(self, client: ClusterClient, topics: Topics, snapshots: Snapshots) -> None:
        self._client = client
        self._topics = topics
        self._snapshots = snapshots
        self._found: OrderedDict[str, Verified] = OrderedDict()
        self._busy = asyncio.Lock()

    def found(self, session_id: str) -> Verified | None:
        """Return what the latest comparison of a session found."""
        return self._found.get(session_id)

    async def verify(self, session_id: str, position: int) -> Verified:
        """Fold the log of the session's partition and compare. Raise OwnerError if that can't be done, TimeoutError if
        it takes longer than a minute.
        """
        async with asyncio.timeout(_SECONDS), self._busy:
            began = time.monotonic()
            counting = KafkaCommandLog(self._client, self._topics.commands, 0)
            try:
                partitions = await counting.partitions()
            finally:
                await counting.close()
            partition = partition_of(session_id, partitions)
            log = KafkaCommandLog(self._client, self._topics.commands, partition)
            results = KafkaResultsLog(self._client, self._topics, partition)
            spread = spread_of(session_id.encode())
            try:
                report = await Verification(
                    partition,
                    partitions,
                    self._topics.results,
                    VerifySources(log, results, self._snapshots),
                    _Quiet(),
                    VerifyOptions(share=Share(spread, spread + 1)),
                ).run()
            finally:
                await asyncio.gather(log.close(), results.close(), return_exceptions=True)
            differences = [shown(partition, one) for one in report.first]
            found = Verified(
                partition,
                report.began,
                report.next_offset,
                position,
                tuple(f"{one['table']} {one['key']}: {one['difference']}" for one in differences),
                time.monotonic() - began,
            )
            self._found[session_id] = found
            while len(self._found) > _MOST_KEPT:
                self._found.popitem(last=False)
            return found
