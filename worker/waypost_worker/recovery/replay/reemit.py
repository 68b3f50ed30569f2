"""A replay that emits: an owner over a log that ends, with results that go to another topic."""

from dataclasses import replace

from typing_extensions import override

from waypost_worker.partition.failure import UnexpectedError
from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.owner import Owner
from waypost_worker.partition.ownership import Acquired, Limits
from waypost_worker.partition.ports import OwnerError, Ports, RefusedError
from waypost_worker.recovery.replay.partition_replay import Replayed
from waypost_worker.recovery.replay.until import BoundedLog
from waypost_worker.recovery.retry import RecoveryProgress


class ReemittingReplay(Observer):
    """Rebuilds one partition up to, and without, ``end``, and emits its results under the owner's protocol.

    So it can be killed and started again, and each result appears once.
    """

    def __init__(
        self,
        partition: int,
        results_topic: str,
        ports: Ports,
        end: int,
        progress: RecoveryProgress,
        limits: Limits,
    ) -> None:
        self.outcome = Replayed(partition, 0, 0)
        self._progress = progress
        self._failed: BaseException | None = None
        self._begun = False
        bounded = Ports(
            make_log=lambda: BoundedLog(ports.make_log(), end, self._drained),
            make_results=ports.make_results,
            store=ports.store,
            clock=ports.clock,
            make_log_ahead=ports.make_log,
        )
        self._owner = Owner(partition, results_topic, bounded, self, replace(limits, look_ahead=True))

    async def run(self) -> Replayed:
        """Replay to the end. RefusedError if a person must look first."""
        await self._owner.run()
        if self._failed is not None:
            raise self._failed
        return self.outcome

    def _drained(self) -> None:
        self._owner.stop()

    @override
    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        if not self._begun:
            self._begun = True
            self.outcome.began = self.outcome.next_offset = acquired.position.next_offset

    @override
    def applied(self, partition: int, batch: AppliedBatch) -> None:
        self.outcome.next_offset = batch.commands[-1].record.offset + 1
        self.outcome.commands += len(batch.commands)
        self._progress.advanced(partition, len(batch.commands), self.outcome.next_offset)

    @override
    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        self.outcome.emitted += len(batch.results)

    @override
    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        if isinstance(why, RefusedError):
            self._failed = why
        elif isinstance(why, UnexpectedError) and why.suspects is None:
            self._failed = why.__cause__
        else:
            return  # another term may get on, or find the command at which it fails
        self._owner.stop()
