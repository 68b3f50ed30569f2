"""A worker whose telemetry is switched on and off while it works; the CPU time of its thread is counted by turns.

Turns come in pairs, one with and one without telemetry in random order: either the log, health and metrics observe
batches and the store is timed, or nothing is observed. Between two turns, there is a pause in which nothing is counted,
so that work that began with telemetry is not counted without. Turns last ``seconds`` or, if that is 0, three batches of
partition 0 with everything in between: under a backlog, each turn then has as many batches of every partition.

The first word begins, the next ends; then it says its turns, one a list: whether telemetry was on, nanoseconds of CPU,
commands, batches, and of the CPU what a stopwatch around telemetry counted, which counts a little without it too.
"""

import asyncio
import gc
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tests.tools.bench.children import run_child, say, word

from waypost.model.index import Session
from waypost_worker.config.settings import load_settings
from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.ownership import Acquired
from waypost_worker.partition.ports import AcquiredState, Commit, Fence, OwnerError, Store
from waypost_worker.runtime import worker as worker_module
from waypost_worker.telemetry.logs import configure_logs
from waypost_worker.telemetry.metrics import Metrics
from waypost_worker.telemetry.timed_store import TimedStore

_PAUSE = 0.01
_BATCHES = 3


class Switch:
    """An observer before the worker's own; what it counts itself costs the same on and off."""

    def __init__(self, observer: Observer) -> None:
        self.on = True
        self.by_batches = False
        self.turns: list[tuple[bool, int, int, int, int]] = []
        self._observer = observer
        self._counted = (0, 0, 0)  # commands, batches, nanoseconds in telemetry
        self._began: tuple[int, ...] | None = None
        self._next: list[bool] = []
        self._left = 1

    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        """A term began."""
        self._observer.acquired(partition, acquired, seconds)

    def applied(self, partition: int, batch: AppliedBatch) -> None:
        """A batch was committed."""
        began = time.thread_time_ns()
        if self.on:
            self._observer.applied(partition, batch)
        spent = time.thread_time_ns() - began
        commands, batches, told = self._counted
        self._counted = (commands + len(batch.commands), batches + 1, told + spent)
        if self.by_batches and partition == 0:
            self._left -= 1
            if self._left <= 0:
                self.turn()
                self._left = 1 if self._began is None else _BATCHES

    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        """A batch's results are in the topic."""
        began = time.thread_time_ns()
        if self.on:
            self._observer.emitted(partition, batch, seconds)
        commands, batches, told = self._counted
        self._counted = (commands, batches, told + time.thread_time_ns() - began)

    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        """A term ended."""
        self._observer.ended(partition, why, wait)

    def turn(self) -> None:
        """A pause ends and a turn begins, or the other way round."""
        now = (time.thread_time_ns(), *self._counted)
        if self._began is not None:
            cpu, commands, batches, told = (
                after - before for after, before in zip(now, self._began, strict=True)
            )
            self.turns.append((self.on, cpu, commands, batches, told))
            self._began = None
            if not self._next:
                self._next = random.sample((True, False), 2)
            self.on = self._next.pop()
        else:
            self._began = now


class SwitchedStore:
    """The store of an owner, measured while telemetry is on."""

    def __init__(self, switch: Switch, store: Store, metrics: Metrics, shard: int) -> None:
        self._switch = switch
        self._bare = store
        self._measured = TimedStore(store, metrics, shard)

    @property
    def _store(self) -> Store:
        return self._measured if self._switch.on else self._bare

    async def acquire(self, partitions: int) -> AcquiredState:
        """See the port."""
        return await self._store.acquire(partitions)

    async def record_claim(self, epoch: int, fence: Fence) -> None:
        """See the port."""
        await self._store.record_claim(epoch, fence)

    async def note_blocked(self, offset: int) -> None:
        """See the port."""
        await self._store.note_blocked(offset)

    async def is_skip_requested(self) -> bool:
        """See the port."""
        return await self._store.is_skip_requested()

    async def save_position(self, epoch: int, emitted: int, results_offset: int) -> None:
        """See the port."""
        await self._store.save_position(epoch, emitted, results_offset)

    async def sizes(self, session_ids: Sequence[str]) -> dict[str, int]:
        """See the port."""
        return await self._store.sizes(session_ids)

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        """See the port."""
        return await self._store.load(session_ids)

    async def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[bytes, bytes]]:
        """See the port."""
        return await self._store.contents(keys)

    async def commit(self, commit: Commit) -> None:
        """See the port."""
        await self._store.commit(commit)


async def take_turns(switch: Switch, seconds: float) -> None:
    """Until the parent's next word."""
    enough = asyncio.create_task(word())
    switch.by_batches = seconds == 0
    while not enough.done():
        if switch.by_batches:
            await enough
        else:
            await asyncio.sleep(_PAUSE)
            switch.turn()
            await asyncio.sleep(seconds)
            switch.turn()
    switch.by_batches = False


async def main(job: dict[str, Any]) -> None:
    """Work until the parent wants an end."""
    settings = load_settings()
    configure_logs(settings.log_level, "json")
    metrics = Metrics()
    worker = worker_module.Worker(settings, metrics)
    switch = Switch(worker._observer)
    worker._observer = switch  # type: ignore[assignment]

    def switched(store: Store, metrics: Metrics, shard: int) -> SwitchedStore:
        return SwitchedStore(switch, store, metrics, shard)

    vars(worker_module)["TimedStore"] = switched
    gc.freeze()  # as in waypost_worker.runtime.process
    gc.set_threshold(500_000, 10, 20)
    working = asyncio.create_task(worker.run())
    await word()
    await take_turns(switch, job["seconds"])
    say(turns=switch.turns[1:])  # the first belongs to no pair
    await word()
    worker.stop()
    await working


if __name__ == "__main__":
    run_child(main)
