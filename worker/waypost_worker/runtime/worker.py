"""One worker process: start, run owners for the partitions that the group assigns, drain, stop.

Knows how the parts fit together, but not what commands mean. The exit code is 0 after a clean drain, and 1 if something
could not be finished or the worker gave up; settings errors never get this far.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import structlog

from waypost.backoff import Backoff
from waypost.kafka.diagnosis import is_auth_failure, refusal
from waypost.shards import ShardSlot
from waypost_worker.config.kafka import kafka_connection
from waypost_worker.config.settings import Settings, masked_dsn
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.membership import Membership
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.partition.failure import UnexpectedError
from waypost_worker.partition.observer import Observer
from waypost_worker.partition.owner import Owner
from waypost_worker.partition.ownership import Limits
from waypost_worker.partition.ports import Ports, ReadProgress, RefusedError, StuckError, UnavailableError
from waypost_worker.postgres.group_acquire import GroupAcquirer
from waypost_worker.postgres.group_commit import GroupCommitter
from waypost_worker.postgres.migrate import SchemaError
from waypost_worker.postgres.shards import Shards
from waypost_worker.postgres.store import PostgresStore
from waypost_worker.runtime.clock import SystemClock
from waypost_worker.runtime.start_checks import check_database_at_start, check_topics_at_start
from waypost_worker.telemetry.database_watch import watch_databases
from waypost_worker.telemetry.health import Health, heartbeat
from waypost_worker.telemetry.metrics import Metrics
from waypost_worker.telemetry.observers import FailureLog, LogObserver, Observers
from waypost_worker.telemetry.open_transactions import OpenTransactions
from waypost_worker.telemetry.timed_store import TimedStore

log = structlog.get_logger("waypost.worker")
_LOOK_SECONDS: Final = 5.0
_FIRST_START_WAIT: Final = 0.2
_LONGEST_START_WAIT: Final = 10.0
_LONGEST_OWNER_WAIT: Final = 30.0
# A stuck consumer is restarted twice before its worker ends by itself; only then does the worker count as dead.
_LIVE_PATIENCE: Final = 4
_T = TypeVar("_T")


class _Stopped(Exception):
    """The worker was asked to stop while it waited for a server."""


@dataclass(slots=True)
class _Run:
    """An owner and the task that runs it."""

    owner: Owner
    task: asyncio.Task[None]


class _Groups(NamedTuple):
    """Groups that all owners with partitions in one database share."""

    committer: GroupCommitter
    acquirer: GroupAcquirer


class Worker:
    """A worker process between start and stop."""

    def __init__(
        self, settings: Settings, metrics: Metrics | None = None, tracing: Observer | None = None
    ) -> None:
        self.health = Health(_LIVE_PATIENCE * settings.stuck_after)
        self._settings = settings
        self._metrics = metrics
        self._topics = settings.topics
        self._connection = kafka_connection(settings)
        self._client = ClusterClient(self._connection)
        self._shards = Shards(
            settings.dsns,
            settings.postgres_schema,
            size=settings.postgres_pool_size,
            timeout=settings.request_timeout,
            statement_cache_size=settings.postgres_statement_cache,
            migrate=settings.migrate,
        )
        self._failure_log = FailureLog()
        self._transactions = OpenTransactions()
        told = (LogObserver(self._failure_log), self.health, metrics, tracing)
        self._observer = Observers(*(one for one in told if one is not None))
        self._stop = asyncio.Event()
        self._runs: dict[int, _Run] = {}
        self._groups: dict[int, _Groups] = {}
        self._changed = asyncio.Event()
        self._failures: dict[int, int] = {}
        self._gave_up = False
        self._looked_at: set[int] = set()

    def stop(self) -> None:
        """Begin to drain. Calling it again changes nothing."""
        self.health.stage = "draining"
        self._stop.set()
        self._changed.set()

    async def run(self) -> int:
        """Work until :meth:`stop`; the exit code."""
        settings = self._settings
        log.info(
            "worker_starting",
            bootstrap_servers=settings.bootstrap_servers,
            postgres=masked_dsn(settings.postgres_dsn.get_secret_value()),
            topics=settings.topic_prefix,
            pid=os.getpid(),
        )
        beside = [asyncio.create_task(heartbeat(self._beat), name="heartbeat")]
        if self._metrics is not None:
            beside.append(asyncio.create_task(self._watch_databases(self._metrics), name="databases"))
        try:
            return await self._work()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _work(self) -> int:
        try:
            await self._until_available("postgres", self._shards.open)
            self.health.check_store = self._check_stores
            await self._until_available("kafka", self._check_topics)
            membership = await self._until_available("kafka", self._join)
        except (_Stopped, SchemaError) as error:
            await self._close_shards()
            if isinstance(error, SchemaError):
                raise
            return 0
        log.info("worker_ready")
        if not self._stop.is_set():
            self.health.stage = "running"
        clean = False
        beside = [
            asyncio.create_task(self._look_around(lambda: membership), name="look-around"),
            asyncio.create_task(self._check_databases(), name="check-databases"),
        ]
        if len(self._shards.pools) < len(self._shards):
            beside.append(asyncio.create_task(self._open_others(), name="open-shards"))
        try:
            while not self._stop.is_set():
                self._changed.clear()
                if isinstance(membership.failed, RefusedError):
                    log.error("group_refused", reason=str(membership.failed))
                    self._gave_up = True
                    break
                if membership.failed is not None:
                    log.warning("membership_restarting", reason=str(membership.failed))
                    await membership.leave()
                    membership = await self._until_available("kafka", self._join)
                elif not membership.rebalancing:
                    self._reconcile(membership.assigned)
                self.health.assignment(membership.assigned, membership.rebalancing)
                await self._until_changed(membership)
        except _Stopped:
            pass
        finally:
            for task in beside:
                task.cancel()
            clean = await self._drain()
            await membership.leave()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._close_shards()
        log.info("worker_stopped", clean=clean)
        return 0 if clean and not self._gave_up else 1

    # Start.

    async def _open_others(self) -> None:
        """Open the shards that were unreachable at the start, each as soon as it answers; the others don't wait for
        it.
        """
        backoff = Backoff(_FIRST_START_WAIT, _LONGEST_START_WAIT)
        while len(self._shards.pools) < len(self._shards):
            wait = backoff.next_wait()
            for shard, problem in self._shards.problems.items():
                log.warning(
                    "postgres_unavailable", shard=shard, reason=_reason(problem), retry_seconds=round(wait, 1)
                )
            await asyncio.sleep(wait)
            # A wrong database is now a problem like any other: only its own partitions wait until an operator acts.
            await self._shards.open(strict=False)
            self._changed.set()
            await self._check_databases()

    async def _check_databases(self) -> None:
        """Say what is wrong with the servers that were not looked at yet."""
        for shard in sorted(self._shards.pools.keys() - self._looked_at):
            self._looked_at.add(shard)
            await check_database_at_start(self._settings, self._shards.pools[shard], shard)

    async def _check_topics(self) -> None:
        try:
            await check_topics_at_start(self._settings, self._connection)
        except UnavailableError as error:
            await self._explain("checking the topics", error)
            raise

    async def _join(self) -> Membership:
        settings = self._settings
        membership = Membership(
            self._connection,
            self._topics.commands,
            settings.group_id,
            session_timeout=settings.session_timeout,
            group_instance_id=settings.group_instance_id,
        )
        try:
            await membership.start()
        except BaseException as error:
            await membership.leave()
            await self._explain("joining the worker group", error)
            raise
        return membership

    async def _explain(self, doing: str, error: BaseException) -> None:
        """Raise an error that says why Kafka refuses this client, if that is why it could not be reached."""
        options = self._connection.options()
        if is_auth_failure(error.__cause__, options):
            why = await refusal(options)
            if why is not None:
                raise UnavailableError(f"Kafka, {doing}: {why}") from error

    async def _until_available(self, what: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Return the result of ``attempt`` as soon as it succeeds. Raise _Stopped if the worker stops first."""
        backoff = Backoff(_FIRST_START_WAIT, _LONGEST_START_WAIT)
        while not self._stop.is_set():
            wait = backoff.next_wait()
            try:
                return await attempt()
            except SchemaError:
                raise
            except RefusedError as error:
                log.error(f"{what}_refused", reason=str(error), retry_seconds=round(wait, 1))
            except Exception as error:
                log.warning(f"{what}_unavailable", reason=_reason(error), retry_seconds=round(wait, 1))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({stopping}, timeout=wait)
            stopping.cancel()
        raise _Stopped

    # Run.

    def _reconcile(self, assigned: frozenset[int]) -> None:
        for partition, run in list(self._runs.items()):
            if run.task.done():
                del self._runs[partition]
                self._take_note(partition, run)
            elif partition not in assigned:
                run.owner.stop()
        for partition in sorted(assigned - set(self._runs)):
            place = self._shards.place_of(partition)
            if not self._stop.is_set() and place.shard in self._shards.pools:
                self._runs[partition] = self._start_owner(partition, place)

    def _start_owner(self, partition: int, place: ShardSlot) -> _Run:
        settings = self._settings
        pool = self._shards.pools[place.shard]
        schema = settings.postgres_schema
        groups = self._groups.setdefault(
            place.shard, _Groups(GroupCommitter(pool, schema), GroupAcquirer(pool, schema))
        )
        store = PostgresStore(pool, partition, schema, place=place, **groups._asdict())
        ports = Ports(
            make_log=lambda: KafkaCommandLog(self._client, self._topics.commands, partition),
            make_results=lambda: KafkaResultsLog(self._client, self._topics, partition),
            store=store if self._metrics is None else TimedStore(store, self._metrics, place.shard),
            clock=SystemClock(),
        )
        limits = Limits(
            batch_records=settings.batch_records,
            batch_bytes=settings.batch_bytes,
            stuck_after=settings.stuck_after,
            accept_trimmed_results=settings.accept_trimmed_results,
        )
        topic = self._topics.results
        owner = Owner(partition, topic, ports, self._observer, limits, cache_room=self._cache_room)
        wait = _owner_wait(self._failures.get(partition, 0))

        async def run() -> None:
            if wait:
                await owner.until_stop(asyncio.sleep(wait))
            await owner.run()

        task = asyncio.create_task(run(), name=f"owner-{partition}")
        task.add_done_callback(lambda _: self._changed.set())
        return _Run(owner, task)

    def _cache_room(self) -> int:
        # An even share for each owner there is now: a rebalance makes it larger or smaller.
        return max(1000, self._settings.cache_items // max(1, len(self._runs)))

    def _take_note(self, partition: int, run: _Run) -> None:
        """An owner's task ended: by stop, because its consumer is stuck, or by an error outside all of its terms."""
        error = asyncio.CancelledError() if run.task.cancelled() else run.task.exception()
        if error is None:
            self._failures.pop(partition, None)
        elif isinstance(error, StuckError):
            log.error("consumer_stuck", partition=partition, reason=str(error))
            self._gave_up = True
            self.stop()
        else:
            failures = self._failures[partition] = self._failures.get(partition, 0) + 1
            self._observer.ended(partition, UnexpectedError(error), _owner_wait(failures))

    async def _until_changed(self, membership: Membership) -> None:
        changes = asyncio.create_task(membership.changed())
        own = asyncio.create_task(self._changed.wait())
        _, pending = await asyncio.wait({changes, own}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _look_around(self, membership: Callable[[], Membership]) -> None:
        """Every few seconds: how far behind partitions are, and what the pool does."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._look(membership())
            except (
                Exception
            ) as error:  # without another check, nobody would notice a partition that makes no progress
                self._failure_log.tell("look_failed", error)

    async def _look(self, group: Membership) -> None:
        """Group offsets are for lag monitors only; the position that counts is in Postgres."""
        assigned = group.assigned
        known = self._progress(assigned)
        await group.commit({partition: progress.position for partition, progress in known.items()})
        ends = await group.ends()
        # Positions are read after the ends: a partition then looks ahead of them rather than behind.
        known = self._progress(assigned)
        positions = {partition: progress.position for partition, progress in known.items()}
        # An owner that never got the partition has no position, but lag must still be shown.
        positions |= await group.committed(ends.keys() - positions.keys())
        for partition, position in positions.items():
            if partition in ends:
                self._tell_lag(partition, max(0, ends[partition] - position), position)
        for partition, progress in known.items():
            self._tell_transaction(partition, progress)
        self._transactions.keep(assigned)
        if self._metrics is not None:
            self._metrics.assignment(assigned)
            for shard, pool in self._shards.pools.items():
                size, idle = pool.get_size(), pool.get_idle_size()
                self._metrics.pool(shard, size - idle, idle, pool.get_max_size())

    def _tell_lag(self, partition: int, commands: int, position: int) -> None:
        self.health.lag(partition, commands, position)
        if self._metrics is not None:
            self._metrics.lag(partition, commands, position)

    def _tell_transaction(self, partition: int, progress: ReadProgress) -> None:
        seconds = self._transactions.look(partition, progress, time.monotonic())
        self.health.open_transaction(partition, seconds, progress.position, progress.held_back)
        if self._metrics is not None:
            self._metrics.open_transaction(partition, seconds)

    def _beat(self, delay: float) -> None:
        self.health.beat()
        if self._metrics is not None:
            self._metrics.loop_delay(delay)

    async def _check_stores(self) -> None:
        """Raise for the first database that does not answer as it should."""
        several = len(self._shards) > 1

        async def check(shard: int) -> None:
            try:
                await self._shards.check(shard)
            except Exception as error:
                if several:
                    raise UnavailableError(
                        f"shard {shard} of {len(self._shards)}: {_reason(error)}"
                    ) from error
                raise

        await asyncio.gather(*map(check, range(len(self._shards))))

    async def _watch_databases(self, metrics: Metrics) -> None:
        shards = self._shards
        patience = self._settings.request_timeout
        await watch_databases(
            len(shards),
            shards.check,
            shards.unknown,
            metrics.shard_up,
            every=_LOOK_SECONDS,
            patience=patience,
        )

    def _progress(self, assigned: frozenset[int]) -> dict[int, ReadProgress]:
        return {
            partition: run.owner.progress
            for partition, run in self._runs.items()
            if partition in assigned and run.owner.progress is not None
        }

    # Stop.

    async def _drain(self) -> bool:
        """Let every owner finish its current batch. Return whether all did in time."""
        tasks = {run.task for run in self._runs.values()}
        for run in self._runs.values():
            run.owner.stop()
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=self._settings.drain_timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if late:
            log.error("drain_incomplete", partitions=len(late), seconds=self._settings.drain_timeout)
        return not late

    async def _close_shards(self) -> None:
        await self._shards.close(self._settings.request_timeout)


def _owner_wait(failures: int) -> float:
    """Seconds before an owner is started whose predecessors failed so often in a row."""
    return min(_LONGEST_OWNER_WAIT, 2.0**failures - 1)


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return f"{type(error).__name__}: {text}" if not isinstance(error, UnavailableError) else text
