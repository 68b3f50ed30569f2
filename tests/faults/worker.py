"""A real worker process that can be made to die or freeze between two steps of the protocol.

Run as ``python -m tests.faults.worker``; settings come from the environment, as for ``waypost worker``. The
worker's code is as it ships: what is put in its way here are subclasses of its ports.

- ``--point NAME --how kill|stop --hits N``: SIGKILL or SIGSTOP to itself the Nth time it comes to the point.
- ``--note FILE``: the point's name is written there just before.
- ``--counts FILE``: at SIGWINCH, numbers of tasks, clients and open files are written there as JSON.
- ``--sabotage drop-outbox|append-twice``: a bug on purpose, to see that the oracle sees it.
- ``--sabotage leak-logs|leak-clusters``: what belongs to a term of an owner is not given up at its end.
- ``--sabotage fail-at-poison|fail-to-acquire``: an unexpected error, at a command whose body has the word
  ``poison``, or each time that a partition is acquired.
- ``--look-at-fence SECONDS``: ask this often whether the results topic still holds the fence.
- ``--clock-ahead SECONDS``: have a wall clock that is wrong by so much, behind if negative.
- ``--no-topic-ids``: take brokers for older than they are, without ids of topics.
- ``--proof-lifetime SECONDS``: trust a proof of ownership for no longer.
- ``--pooler``: ask Postgres again if a connection breaks while sessions are read, as a pooler does that keeps its
  clients' connections while the server restarts.
- ``--new-producer-id``: take producer epochs of another id, as if Kafka had forgotten the transactional id.
- ``--redirect PORT=PORT``: connect to another loopback port in place of a broker's, where a proxy listens.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, TypeVar

import asyncpg
from aiokafka.conn import AIOKafkaConnection
from tests.faults.points import POINTS

from waypost.kafka.batch_producer import BatchProducer
from waypost.kafka.cluster_connections import ClusterConnections
from waypost.kafka.topic_reader import TopicReader
from waypost.model.index import Session
from waypost.wire.envelope import KafkaRecord
from waypost.wire.event_types import EventType
from waypost.wire.topics import Topics
from waypost_worker.cli.worker.run import run
from waypost_worker.config.settings import load_settings
from waypost_worker.kafka import fenced_producer, partition_reader
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.partition_reader import PartitionReader
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.partition import batch, skips
from waypost_worker.partition.batch import Decoded
from waypost_worker.partition.ownership import Limits
from waypost_worker.partition.ports import (
    AcquiredState,
    Commit,
    Fence,
    FetchedResult,
    ResultRecord,
    UnavailableError,
)
from waypost_worker.postgres.group_commit import GroupCommitter
from waypost_worker.postgres.rows import PartitionCommit
from waypost_worker.postgres.store import PostgresStore
from waypost_worker.runtime import process
from waypost_worker.runtime import worker as worker_module
from waypost_worker.runtime.clock import SystemClock

Answer = TypeVar("Answer")
_ACQUIRED = EventType.ACQUIRED.wire


class Trap:
    """Where, how and at which visit this process is to be caught."""

    def __init__(self, point: str | None, how: str, hits: int, note: Path | None) -> None:
        self._point = point
        self._signal = signal.SIGKILL if how == "kill" else signal.SIGSTOP
        self._left = hits
        self._note = note
        # Partitions between step 1 and step 6, and those of them whose tail was read.
        self.acquiring: set[int] = set()
        self.saved: set[int] = set()

    def reached(self, name: str) -> None:
        """The process is at this point now."""
        if name != self._point:
            return
        self._left -= 1
        if self._left == 0:
            if self._note is not None:
                self._note.write_text(name)
            os.kill(os.getpid(), self._signal)


class TrappedLog(KafkaCommandLog):
    trap: Trap

    async def partitions(self) -> int:
        found = await super().partitions()
        self.trap.reached("acquire-0-begun")
        return found

    async def seek(self, offset: int) -> None:
        await super().seek(offset)
        if self._partition.partition in self.trap.saved:  # a look ahead in the log seeks before that
            self.trap.acquiring.discard(self._partition.partition)
            self.trap.reached("acquire-6-positioned")

    async def fetch(self, most: int) -> Sequence[KafkaRecord]:
        found = await super().fetch(most)
        if found:
            self.trap.reached("batch-1-fetched")
        return found


class TrappedResults(KafkaResultsLog):
    trap: Trap

    async def bounds(self) -> tuple[int, int]:
        found = await super().bounds()
        self.trap.reached("acquire-1-log-checked")
        return found

    async def claim(self) -> Fence:
        fence = await super().claim()
        self.trap.reached("acquire-2-epoch-claimed")
        return fence

    async def append(self, records: Sequence[ResultRecord]) -> int:
        if dict(records[0].headers).get("ce_type") == _ACQUIRED:
            base = await super().append(records)
            self.trap.reached("acquire-2-fence-appended")
            return base
        acquiring = self._partition.partition in self.trap.acquiring
        self.trap.reached("acquire-5-before-reemission" if acquiring else "batch-5-before-append")
        base = await super().append(records)
        self.trap.reached("acquire-5-reemitted" if acquiring else "batch-6-appended")
        return base

    async def read(self, first: int, end: int) -> AsyncIterator[Sequence[FetchedResult]]:
        async for piece in super().read(first, end):
            yield piece
        self.trap.reached("acquire-3-tail-read")


class TrappedStore(PostgresStore):
    trap: Trap

    async def acquire(self, partitions: int) -> AcquiredState:
        acquired = await super().acquire(partitions)
        self.trap.acquiring.add(self._partition)
        self.trap.saved.discard(self._partition)
        self.trap.reached("acquire-1-postgres-fenced")
        return acquired

    async def record_claim(self, epoch: int, fence: Fence) -> None:
        await super().record_claim(epoch, fence)
        self.trap.reached("acquire-2-claim-recorded")

    async def save_position(self, epoch: int, emitted: int, results_offset: int) -> None:
        name = "release-2-position-saved"
        if self._partition in self.trap.acquiring:
            again = self._partition in self.trap.saved
            name = "acquire-5-reemission-confirmed" if again else "acquire-3-position-saved"
            self.trap.saved.add(self._partition)
        else:
            self.trap.reached("release-1-emitted")
        await super().save_position(epoch, emitted, results_offset)
        self.trap.reached(name)

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        found = await super().load(session_ids)
        self.trap.reached("batch-2-loaded")
        return found

    async def commit(self, commit: Commit) -> None:
        self.trap.reached("batch-3-decided")
        await super().commit(commit)
        self.trap.reached("batch-4-committed")


class TrappedCommitter(GroupCommitter):
    trap: Trap

    async def _commit_several(self, parts: Sequence[PartitionCommit]) -> dict[int, tuple[int, int]]:
        places = await super()._commit_several(parts)
        self.trap.reached("batch-4-group-committed")
        return places


# What can be left open by mistake. What is closed counts no more, even if an exception still refers to it.
KINDS: dict[str, tuple[type[Any], Callable[[Any], int]]] = {
    "clusters": (ClusterConnections, lambda one: not one._is_closed),
    "users of connections": (ClusterClient, lambda one: len(one._users)),
    "producers of clients": (BatchProducer, lambda one: not one.connections._is_closed),
    "readers of clients": (TopicReader, lambda one: 1),
    "pools": (asyncpg.Pool, lambda one: not one._closed),
}


def counts() -> dict[str, int]:
    """What a leak would make grow: what KINDS names, members of the group, tasks, open files; and owners at work."""
    gc.collect()
    found = dict.fromkeys(KINDS, 0)
    for thing in gc.get_objects():
        for name, (kind, count) in KINDS.items():
            if isinstance(thing, kind):
                found[name] += count(thing)
    tasks = asyncio.all_tasks()
    named = [task.get_name() for task in tasks]
    return {
        **found,
        "memberships": named.count("membership"),
        "tasks": len(tasks),
        "owners": sum(name.startswith("owner-") for name in named),
        "files": len(os.listdir("/proc/self/fd")),
    }


class ForgetfulStore(TrappedStore):
    """Takes a partition over and forgets what its predecessor had committed and not emitted."""

    async def acquire(self, partitions: int) -> AcquiredState:
        return replace(await super().acquire(partitions), outbox=[])


class UnclosedLog(TrappedLog):
    """Leaves its readers and its share of the connections open."""

    left: ClassVar[list["UnclosedLog"]] = []

    async def close(self) -> None:
        self.left.append(self)


class LonelyLog(TrappedLog):
    """Has connections of its own, which it forgets to close."""

    left: ClassVar[list[ClusterConnections]] = []

    async def partitions(self) -> int:
        own = ClusterConnections(**self._client.connection.options())
        await own.bootstrap()
        self.left.append(own)
        return await super().partitions()


class RepeatingResults(TrappedResults):
    """Appends every batch of results twice."""

    async def append(self, records: Sequence[ResultRecord]) -> int:
        base = await super().append(records)
        if dict(records[0].headers).get("ce_type") != _ACQUIRED:
            await super().append(records)
        return base


class RenamedResults(TrappedResults):
    """Has another transactional id, and so another producer id, than those who came before."""

    def __init__(self, client: ClusterClient, topics: Topics, partition: int) -> None:
        super().__init__(client, topics, partition)
        self._transactional_id += ".new"


class PooledStore(TrappedStore):
    """Reads sessions over whatever connection there is at last."""

    async def sizes(self, session_ids: Sequence[str]) -> dict[str, int]:
        return await self._at_last(lambda: super(PooledStore, self).sizes(session_ids))

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        return await self._at_last(lambda: super(PooledStore, self).load(session_ids))

    async def _at_last(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        while True:
            try:
                return await ask()
            except UnavailableError:
                await asyncio.sleep(0.05)


class FailingStore(TrappedStore):
    """Can't take any partition over."""

    async def acquire(self, partitions: int) -> AcquiredState:
        raise TypeError("a bug on purpose")


def fail_at_poison() -> None:
    """Let the decoder stumble over certain commands."""
    shipped = batch.decode

    def decode(record: KafkaRecord, partition: int, partitions: int) -> Decoded:
        if b"poison" in (record.value or b""):
            raise TypeError("a bug on purpose")
        return shipped(record, partition, partitions)

    assert vars(skips)["decode"] is shipped
    vars(skips)["decode"] = decode


def set_clock(ahead: float) -> None:
    """Let all that reads the wall clock read another time: the dates of results, and the ages of proofs."""

    class WrongClock(SystemClock):
        def walltime(self) -> float:
            return super().walltime() + ahead

    put(worker_module, WrongClock)
    shipped = vars(fenced_producer)["time"]
    nanoseconds = int(ahead * 1e9)
    vars(fenced_producer)["time"] = SimpleNamespace(time_ns=lambda: shipped.time_ns() + nanoseconds)


def forget_topic_ids() -> None:
    """Let no broker tell the id of a topic."""

    async def unknown(reader: PartitionReader) -> None:
        return None

    assert hasattr(PartitionReader, "_ask_topic_id")
    vars(partition_reader)["PartitionReader"]._ask_topic_id = unknown


SABOTAGE: dict[str, Callable[[], None]] = {
    "drop-outbox": lambda: put(worker_module, ForgetfulStore),
    "append-twice": lambda: put(worker_module, RepeatingResults),
    "leak-logs": lambda: put(worker_module, UnclosedLog),
    "leak-clusters": lambda: put(worker_module, LonelyLog),
    "fail-at-poison": fail_at_poison,
    "fail-to-acquire": lambda: put(worker_module, FailingStore),
}


class CountedWorker(worker_module.Worker):
    counts_file: Path

    async def run(self) -> int:
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, self._write_counts)
        return await super().run()

    def _write_counts(self) -> None:
        new = self.counts_file.with_suffix(".new")
        new.write_text(json.dumps(counts()))
        new.replace(self.counts_file)


def put(module: ModuleType, *classes: type) -> None:
    """Let a module use these in place of the product's classes that they extend."""
    for one in classes:
        shipped = next(base for base in one.__mro__ if base.__module__.startswith("waypost_worker."))
        assert hasattr(module, shipped.__name__), f"{module.__name__} has no {shipped.__name__} any more"
        setattr(module, shipped.__name__, one)


def redirect(ports: dict[int, int]) -> None:
    """Make every Kafka client of this process connect to other ports than those that brokers advertise."""
    connection: Any = AIOKafkaConnection
    connect = connection.__init__

    def redirected(self: Any, host: str, port: int, **options: Any) -> None:
        connect(self, host, ports.get(port, port), **options)

    connection.__init__ = redirected


def main() -> None:
    """Parse, arm, run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--point", choices=POINTS)
    parser.add_argument("--how", choices=("kill", "stop"), default="kill")
    parser.add_argument("--hits", type=int, default=1)
    parser.add_argument("--note", type=Path)
    parser.add_argument("--counts", type=Path, required=True)
    parser.add_argument("--sabotage", choices=SABOTAGE)
    parser.add_argument("--refused-wait", type=float)
    parser.add_argument("--look-at-fence", type=float)
    parser.add_argument("--clock-ahead", type=float)
    parser.add_argument("--no-topic-ids", action="store_true")
    parser.add_argument("--proof-lifetime", type=float)
    parser.add_argument("--pooler", action="store_true")
    parser.add_argument("--new-producer-id", action="store_true")
    parser.add_argument("--redirect", action="append", default=[])
    arguments = parser.parse_args()
    trap = Trap(arguments.point, arguments.how, arguments.hits, arguments.note)
    TrappedLog.trap = TrappedResults.trap = TrappedStore.trap = TrappedCommitter.trap = trap
    CountedWorker.counts_file = arguments.counts
    put(worker_module, TrappedLog, TrappedResults, TrappedStore, TrappedCommitter)
    put(process, CountedWorker)
    if arguments.sabotage:
        SABOTAGE[arguments.sabotage]()
    if arguments.clock_ahead:
        set_clock(arguments.clock_ahead)
    if arguments.no_topic_ids:
        forget_topic_ids()
    limits = {
        "proof_lifetime": arguments.proof_lifetime,
        "look_at_fence_after": arguments.look_at_fence,
        "refused_wait": arguments.refused_wait,
    }
    assert vars(worker_module)["Limits"] is Limits
    vars(worker_module)["Limits"] = partial(Limits, **{name: one for name, one in limits.items() if one})
    if arguments.pooler:
        put(worker_module, PooledStore)
    if arguments.new_producer_id:
        put(worker_module, RenamedResults)
    if arguments.redirect:
        redirect({int(a): int(b) for a, b in (text.split("=") for text in arguments.redirect)})
    raise SystemExit(run(load_settings()))


if __name__ == "__main__":
    main()
