"""One worker process: start, run owners for the partitions that the group assigns, drain, stop.

Knows how the parts fit together and nothing of what commands mean. Exit codes: 0 after a clean drain, 1 when
something could not be finished or the worker gave up; settings errors never come this far.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import asyncpg
import structlog

from waypost.refusal import may_be_refusal, refusal
from waypost_worker.clock import SystemClock
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.membership import Membership
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.kafka_access import kafka_connection
from waypost_worker.partition.observer import Observer
from waypost_worker.partition.owner import Limits, Owner, Ports, StuckError
from waypost_worker.partition.ports import RefusedError, UnavailableError
from waypost_worker.postgres.migrate import SchemaError, migrate
from waypost_worker.postgres.pool import Pool, check_schema, open_pool
from waypost_worker.postgres.store import PostgresStore
from waypost_worker.settings import Settings, masked_dsn
from waypost_worker.telemetry.health import Health
from waypost_worker.telemetry.heartbeat import heartbeat
from waypost_worker.telemetry.measured import MeasuredStore
from waypost_worker.telemetry.metrics import Metrics
from waypost_worker.telemetry.observers import LogObserver, Observers

log = structlog.get_logger("waypost.worker")
_LOOK_SECONDS: Final = 5.0
_LONGEST_START_WAIT: Final = 10.0
_LONGEST_OWNER_WAIT: Final = 30.0
# A consumer that is stuck is started anew, twice, before its worker ends by itself: only then is it dead.
_LIVE_PATIENCE: Final = 4
_T = TypeVar("_T")


class _Stopped(Exception):
    """The worker was told to stop while it waited for a server."""


@dataclass(slots=True)
class _Run:
    """An owner and the task that runs it."""

    owner: Owner
    task: asyncio.Task[None]


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
        told = (LogObserver(), self.health, metrics, tracing)
        self._observer = Observers(*(one for one in told if one is not None))
        self._stop = asyncio.Event()
        self._runs: dict[int, _Run] = {}
        self._changed = asyncio.Event()
        self._failures: dict[int, int] = {}
        self._gave_up = False

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
        beating = asyncio.create_task(heartbeat(self._beat), name="heartbeat")
        try:
            return await self._work()
        finally:
            beating.cancel()

    async def _work(self) -> int:
        try:
            pool = await self._until_available("postgres", self._open_store)
        except _Stopped:
            return 0
        self.health.check_store = lambda: self._check_store(pool)
        try:
            membership = await self._until_available("kafka", self._join)
        except _Stopped:
            await pool.close()
            return 0
        log.info("worker_ready")
        if not self._stop.is_set():
            self.health.stage = "running"
        self._pool = pool
        clean = False
        looking = asyncio.create_task(self._look_around(lambda: membership), name="look-around")
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
            looking.cancel()
            clean = await self._drain()
            await membership.leave()
            await self._close_pool(pool)
        log.info("worker_stopped", clean=clean)
        return 0 if clean and not self._gave_up else 1

    # Start.

    async def _open_store(self) -> Pool:
        settings = self._settings
        pool = await open_pool(
            settings.postgres_dsn.get_secret_value(),
            size=settings.postgres_pool_size,
            timeout=settings.request_timeout,
            statement_cache_size=settings.postgres_statement_cache,
        )
        try:
            async with pool.acquire() as connection:
                if settings.migrate:
                    await migrate(connection, settings.postgres_schema)
                await check_schema(connection, settings.postgres_schema)
        except BaseException:
            await pool.close()
            raise
        return pool

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
            options = self._connection.options()
            if may_be_refusal(error.__cause__, options):
                why = await refusal(options)
                if why is not None:
                    raise UnavailableError(f"Kafka, joining the worker group: {why}") from error
            raise
        return membership

    async def _until_available(self, what: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """What ``attempt`` gives, as soon as it can; _Stopped if the worker is to stop before."""
        wait = 0.2
        while not self._stop.is_set():
            try:
                return await attempt()
            except SchemaError:
                raise
            except Exception as error:
                log.warning(f"{what}_unavailable", reason=_reason(error), retry_seconds=round(wait, 1))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({stopping}, timeout=wait)
            stopping.cancel()
            wait = min(wait * 2, _LONGEST_START_WAIT)
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
            if not self._stop.is_set():
                self._runs[partition] = self._start_owner(partition)

    def _start_owner(self, partition: int) -> _Run:
        settings = self._settings
        store = PostgresStore(self._pool, partition, settings.postgres_schema)
        ports = Ports(
            make_log=lambda: KafkaCommandLog(self._connection, self._topics.commands, partition),
            make_results=lambda: KafkaResultsLog(self._connection, self._topics, partition),
            store=store if self._metrics is None else MeasuredStore(store, self._metrics),
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
        wait = min(_LONGEST_OWNER_WAIT, 2.0 ** self._failures.get(partition, 0) - 1)

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
        """An owner's task ended: by stop, because its consumer is stuck, or by an error that nobody foresaw."""
        if run.task.cancelled():
            return
        error = run.task.exception()
        if error is None:
            self._failures.pop(partition, None)
        elif isinstance(error, StuckError):
            log.error("consumer_stuck", partition=partition, reason=str(error))
            self._gave_up = True
            self.stop()
        else:
            self._failures[partition] = self._failures.get(partition, 0) + 1
            log.error("owner_failed", partition=partition, exc_info=error)

    async def _until_changed(self, membership: Membership) -> None:
        changes = asyncio.create_task(membership.changed())
        own = asyncio.create_task(self._changed.wait())
        _, pending = await asyncio.wait({changes, own}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _look_around(self, membership: Callable[[], Membership]) -> None:
        """Every few seconds: how far behind partitions are, and what the pool does.

        Group offsets are for lag monitors only; the position that counts is in Postgres.
        """
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            group = membership()
            await group.commit(self._offsets(group.assigned))
            ends = await group.ends()
            # Positions are read after the ends: a partition then looks ahead of them rather than behind.
            for partition, offset in self._offsets(group.assigned).items():
                if partition in ends:
                    self._tell_lag(partition, max(0, ends[partition] - offset))
            if self._metrics is not None:
                self._metrics.assignment(group.assigned)
                size, idle = self._pool.get_size(), self._pool.get_idle_size()
                self._metrics.pool(size - idle, idle, self._pool.get_max_size())

    def _tell_lag(self, partition: int, commands: int) -> None:
        self.health.lag(partition, commands)
        if self._metrics is not None:
            self._metrics.lag(partition, commands)

    def _beat(self, delay: float) -> None:
        self.health.beat()
        if self._metrics is not None:
            self._metrics.loop_delay(delay)

    async def _check_store(self, pool: Pool) -> None:
        async with pool.acquire() as connection:
            await check_schema(connection, self._settings.postgres_schema, newer=True)

    def _offsets(self, assigned: frozenset[int]) -> dict[int, int]:
        return {
            partition: run.owner.next_offset
            for partition, run in self._runs.items()
            if partition in assigned and run.owner.next_offset is not None
        }

    # Stop.

    async def _drain(self) -> bool:
        """Let every owner finish the batch in hand; whether all did in time."""
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

    async def _close_pool(self, pool: Pool) -> None:
        try:
            await asyncio.wait_for(pool.close(), self._settings.request_timeout)
        except (TimeoutError, OSError, asyncpg.PostgresError):
            pool.terminate()


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return f"{type(error).__name__}: {text}" if not isinstance(error, UnavailableError) else text
