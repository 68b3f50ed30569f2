"""One worker process: start, run owners for the partitions that the group assigns, drain, stop.

Knows how the parts fit together and nothing of what commands mean. Exit codes: 0 after a clean drain, 1 when
something could not be finished or the worker gave up; settings errors never come this far.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import asyncpg
import structlog

from waypost_worker.clock import SystemClock
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.membership import Membership
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.partition.acquire import Acquired
from waypost_worker.partition.owner import Limits, Owner, Ports, StuckError
from waypost_worker.partition.ports import (
    FencedError,
    OwnerError,
    RefusedError,
    ResultRecord,
    UnavailableError,
)
from waypost_worker.postgres.migrate import SchemaError, migrate
from waypost_worker.postgres.pool import Pool, check_schema, open_pool
from waypost_worker.postgres.store import PostgresStore
from waypost_worker.settings import Settings, masked_dsn

log = structlog.get_logger("waypost.worker")
_LAG_COMMIT_SECONDS: Final = 5.0
_LONGEST_START_WAIT: Final = 10.0
_LONGEST_OWNER_WAIT: Final = 30.0
_T = TypeVar("_T")


class _Stopped(Exception):
    """The worker was told to stop while it waited for a server."""


class LoggingObserver:
    """Tells the log what owners do. Per-batch events are debug, terms are info, refusals are errors."""

    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        """A term began."""
        log.info(
            "partition_acquired",
            partition=partition,
            epoch=acquired.position.epoch,
            next_offset=acquired.position.next_offset,
            reemitted=acquired.reemitted,
            milliseconds=round(seconds * 1000),
        )

    def applied(self, partition: int, results: list[tuple[int, ResultRecord]], seconds: float) -> None:
        """A batch was committed."""
        log.debug("batch", partition=partition, commands=len(results), milliseconds=round(seconds * 1000, 1))

    def emitted(self, partition: int, records: int, seconds: float) -> None:
        """A batch's results are in the topic."""

    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        """A term ended."""
        match why:
            case None:
                log.info("partition_released", partition=partition)
            case RefusedError():
                log.error(
                    "partition_refused", partition=partition, reason=str(why), retry_seconds=round(wait)
                )
            case FencedError():
                log.info("partition_fenced", partition=partition, reason=str(why))
            case _:
                log.warning(
                    "term_ended",
                    partition=partition,
                    kind=type(why).__name__,
                    reason=str(why),
                    retry_seconds=round(wait, 2),
                )


@dataclass(slots=True)
class _Run:
    """An owner and the task that runs it."""

    owner: Owner
    task: asyncio.Task[None]


class Worker:
    """A worker process between start and stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = settings.topics
        self._connection = Connection(settings.bootstrap_servers, request_timeout=settings.request_timeout)
        self._observer = LoggingObserver()
        self._stop = asyncio.Event()
        self._runs: dict[int, _Run] = {}
        self._changed = asyncio.Event()
        self._failures: dict[int, int] = {}
        self._gave_up = False

    def stop(self) -> None:
        """Begin to drain. Calling it again changes nothing."""
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
        try:
            pool = await self._until_available("postgres", self._open_store)
        except _Stopped:
            return 0
        try:
            membership = await self._until_available("kafka", self._join)
        except _Stopped:
            await pool.close()
            return 0
        log.info("worker_ready")
        self._pool = pool
        clean = False
        lag = asyncio.create_task(self._commit_lag(lambda: membership))
        try:
            while not self._stop.is_set():
                self._changed.clear()
                if membership.failed is not None:
                    log.warning("membership_restarting", reason=str(membership.failed))
                    await membership.leave()
                    membership = await self._until_available("kafka", self._join)
                elif not membership.rebalancing:
                    self._reconcile(membership.assigned)
                await self._until_changed(membership)
        except _Stopped:
            pass
        finally:
            lag.cancel()
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
        except BaseException:
            await membership.leave()
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
        ports = Ports(
            make_log=lambda: KafkaCommandLog(self._connection, self._topics.commands, partition),
            make_results=lambda: KafkaResultsLog(self._connection, self._topics, partition),
            store=PostgresStore(self._pool, partition, settings.postgres_schema),
            clock=SystemClock(),
        )
        limits = Limits(
            batch_records=settings.batch_records,
            batch_bytes=settings.batch_bytes,
            cache_items=max(1000, settings.cache_items // max(1, len(self._runs) + 1)),
            stuck_after=settings.stuck_after,
            accept_trimmed_results=settings.accept_trimmed_results,
        )
        owner = Owner(partition, self._topics.results, ports, self._observer, limits)
        wait = min(_LONGEST_OWNER_WAIT, 2.0 ** self._failures.get(partition, 0) - 1)

        async def run() -> None:
            if wait:
                await owner.until_stop(asyncio.sleep(wait))
            await owner.run()

        task = asyncio.create_task(run(), name=f"owner-{partition}")
        task.add_done_callback(lambda _: self._changed.set())
        return _Run(owner, task)

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

    async def _commit_lag(self, membership: Callable[[], Membership]) -> None:
        """Group offsets are for lag monitors only; the position that counts is in Postgres."""
        while True:
            await asyncio.sleep(_LAG_COMMIT_SECONDS)
            await membership().commit(self._offsets(membership().assigned))

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


def run_worker(settings: Settings) -> int:
    """Run one worker in this process until SIGTERM or SIGINT; its exit code. A second signal ends at once."""

    async def main() -> int:
        worker = Worker(settings)
        loop = asyncio.get_running_loop()
        stopping = False

        def on_signal(number: int) -> None:
            nonlocal stopping
            if stopping:
                log.warning("worker_killed", signal=signal.Signals(number).name)
                sys.stderr.flush()
                os._exit(1)
            stopping = True
            log.info("worker_draining", signal=signal.Signals(number).name)
            worker.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        return await worker.run()

    # Sessions in the cache are many small objects that live long: looking at all of them often is waste.
    gc.set_threshold(50_000, 20, 50)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    return uvloop.run(main())
