"""The answers of the probes. Owners (as their observer) and the worker report to it; it queries only the store.

- started: the worker has connected to Postgres and Kafka once.
- live: the event loop runs, and every partition that could make progress does. A worker with an unreachable server is
  not dead, because a restart would not bring the server back.
- ready: Postgres answers with this version's schema, and every assigned partition is owned. One whose owner failed
  by an unexpected error counts as owned again once it has applied something, or has nothing left to do.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from typing_extensions import override

from waypost_worker.partition.failure import RefusedCommandError, UnexpectedError
from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.ownership import Acquired
from waypost_worker.partition.ports import OwnerError, RefusedError, UnavailableError
from waypost_worker.telemetry.observers import says_nothing

HEARTBEAT_SECONDS: Final = 10.0
# Any transaction is open for a moment.
TRANSACTION_SECONDS: Final = 10.0
_STORE_SECONDS: Final = 2.0
_BEAT_SECONDS: Final = 0.25
_SECONDS_KEPT: Final = 10.0
Stage = Literal["starting", "running", "draining"]
CheckStore = Callable[[], Awaitable[object]]


class HealthReport(NamedTuple):
    """An answer, and what it rests on: the word ``ok`` or what is wrong, by check.

    ``notes`` are findings that don't change the answer.
    """

    ok: bool
    checks: dict[str, str]
    notes: dict[str, str]


class Health(Observer):
    """The health of one worker. ``patience`` is how many seconds a partition with lag may make no progress."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.stage: Stage = "starting"
        self.check_store: CheckStore | None = None
        self._patience = patience
        self._clock = clock
        self._beat = clock()
        self._assigned: frozenset[int] | None = None
        self._rebalancing = True
        self._progress: dict[int, float] = {}  # of owned partitions
        self._lag: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._ended: dict[int, str] = {}
        self._failing: dict[int, str] = {}  # despite being acquired repeatedly
        self._transactions: dict[int, tuple[float, int, int]] = {}
        self._asking: asyncio.Future[str] | None = None

    # Reports from owners.

    @override
    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        self._progress[partition] = self._clock()
        self._ended.pop(partition, None)

    @override
    def applied(self, partition: int, batch: AppliedBatch) -> None:
        self._progress[partition] = self._clock()
        if self._failing:
            self._failing.pop(partition, None)

    @override
    @says_nothing
    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        pass

    @override
    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        self._progress.pop(partition, None)
        self._lag.pop(partition, None)
        self._transactions.pop(partition, None)
        if why is None:
            self._ended.pop(partition, None)
            self._failing.pop(partition, None)
            return
        self._ended[partition] = text = f"{_kind(why)}: {why}"
        if isinstance(why, UnexpectedError | RefusedCommandError):
            self._failing[partition] = text

    # Reports from the worker.

    def beat(self) -> None:
        """The event loop turns."""
        self._beat = self._clock()

    def assignment(self, partitions: frozenset[int], rebalancing: bool) -> None:
        """Set the partitions that the group assigns to this worker."""
        self._assigned = partitions
        self._rebalancing = rebalancing
        for told in (self._ended, self._failing, self._positions, self._transactions):
            for gone in set(told) - partitions:
                del told[gone]

    def lag(self, partition: int, commands: int, position: int) -> None:
        """Set how many records wait in the log, starting at ``position``."""
        self._lag[partition] = commands
        moved = self._positions.get(partition) != position
        self._positions[partition] = position
        if partition not in self._progress:
            return
        if moved or commands == 0:
            self._progress[partition] = self._clock()
        if commands == 0:
            self._failing.pop(partition, None)

    def open_transaction(self, partition: int, seconds: float, offset: int, records: int) -> None:
        """For how long a client's transaction, open at ``offset``, has held back ``records``; 0 if none does."""
        if seconds < TRANSACTION_SECONDS:
            self._transactions.pop(partition, None)
        else:
            self._transactions[partition] = (seconds, offset, records)

    # The answers.

    def started(self) -> HealthReport:
        """For a startup probe."""
        return _verdict({"worker": "ok" if self.stage != "starting" else "waiting for Postgres and Kafka"})

    def live(self) -> HealthReport:
        """For a liveness probe."""
        now = self._clock()
        silent = now - self._beat
        still = [
            f"partition {partition}: {self._lag[partition]} commands wait, none applied for {now - at:.0f} s"
            for partition, at in sorted(self._progress.items())
            if self._lag.get(partition) and now - at > self._patience
        ]
        return _verdict(
            {
                "heartbeat": "ok" if silent < HEARTBEAT_SECONDS else f"silent for {silent:.0f} s",
                "progress": "; ".join(still) or "ok",
            }
        )

    async def ready(self) -> HealthReport:
        """For a readiness probe."""
        if self.stage != "running":
            return _verdict({"worker": self.stage})
        found = _verdict({"postgres": await self._store(), "partitions": self._partitions()})
        # No reason to take a worker for unready: another one would stand before the same transaction.
        return found._replace(notes=self._open_transactions())

    async def _store(self) -> str:
        if self.check_store is None:
            return "no connection yet"
        # Simultaneous requests share one answer, because anyone who can reach the port must not empty the pool.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask(self.check_store))
        return await asyncio.shield(self._asking)

    @staticmethod
    async def _ask(check_store: CheckStore) -> str:
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await check_store()
        except TimeoutError:
            return f"no answer within {_STORE_SECONDS:.0f} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "ok"

    def _partitions(self) -> str:
        if self._assigned is None or self._rebalancing:
            return "waiting for the group's assignment"
        missing = sorted(self._assigned - (set(self._progress) - set(self._failing)))
        return "; ".join(f"partition {partition}: {self._why(partition)}" for partition in missing) or "ok"

    def _why(self, partition: int) -> str:
        """Return why a partition is not owned. The reason for the end of its last term comes first, unless it is
        acquired again.
        """
        return self._ended.get(partition) or self._failing.get(partition, "being acquired")

    def _open_transactions(self) -> dict[str, str]:
        found = [
            f"partition {partition}: a client's transaction is open at offset {offset} for {seconds:.0f} s, and "
            f"{records} records from there on wait for its end"
            for partition, (seconds, offset, records) in sorted(self._transactions.items())
        ]
        return {"transactions": "; ".join(found)} if found else {}


def _kind(why: OwnerError) -> str:
    if isinstance(why, RefusedError):
        return "refused"
    if isinstance(why, UnexpectedError):
        return "unexpected error"
    if isinstance(why, UnavailableError):  # and all that derive from it
        return "unavailable"
    return type(why).__name__.removesuffix("Error").lower()


def _verdict(checks: dict[str, str]) -> HealthReport:
    return HealthReport(all(found == "ok" for found in checks.values()), checks, {})


async def heartbeat(beat: Callable[[float], None]) -> None:
    """Call ``beat`` four times a second with the longest recent delay of the event loop, until canceled.

    The delay is how long what is ready has to wait, measured by sleeping: the longest of the last ten seconds.
    """
    loop = asyncio.get_running_loop()
    delays: deque[float] = deque(maxlen=int(_SECONDS_KEPT / _BEAT_SECONDS))
    while True:
        due = loop.time() + _BEAT_SECONDS
        await asyncio.sleep(_BEAT_SECONDS)
        delays.append(max(0.0, loop.time() - due))
        beat(max(delays))
