"""Single faults as the soak deals them, each from its beginning to where it heals."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
from tests.faults.processes import REQUEST_TIMEOUT, SESSION_TIMEOUT, WorkerProcess
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene, pick
from tests.faults.ways import Ways
from tests.faults.wire import Losses

from waypost_worker.devserver import Servers

LOST_REPLIES: Final = 3


class Blows:
    """Deals one of many faults at a time. The eldest worker is never ended, so that a leak in it shows."""

    def __init__(self, stage: Scene, servers: Servers, ways: Ways, commits: Losses, appends: Losses) -> None:
        self._stage = stage
        self._servers = servers
        self._ways = ways
        self._commits = commits
        self._appends = appends
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "worker killed": self.kill_worker,
            "worker frozen": self.freeze_worker,
            "worker drained": self.drain_worker,
            "worker joined": self.join,
            "connections cut": self.cut,
            "connections half cut": self.half_cut,
            "connections delayed": self.delay,
            "commit replies lost": lambda: self.lose(self._commits),
            "append replies lost": lambda: self.lose(self._appends),
            "backends terminated": self.terminate_backends,
            "Postgres restarted": self.restart_postgres,
            "Postgres frozen": self.freeze_postgres,
            "broker killed": self.kill_broker,
            "broker frozen": self.freeze_broker,
        }

    def next(self) -> str:
        """The name of the next blow."""
        return self._stage.random.choice(list(self.kinds))

    async def kill_worker(self) -> None:
        await self._younger().end(signal.SIGKILL)
        await self._stage.worker()

    async def drain_worker(self) -> None:
        worker = self._younger()
        await self._stage.until(lambda: bool(worker.says("worker_ready")))
        await worker.end(signal.SIGTERM)
        await self._stage.worker()

    async def join(self) -> None:
        """One more for a while, so that partitions move twice."""
        guest = await self._stage.worker()
        await self._stage.until(lambda: bool(guest.says("partition_acquired")))
        await guest.end(signal.SIGTERM)

    async def freeze_worker(self) -> None:
        worker = pick(self._stage.alive, self._stage.random)
        worker.freeze()
        await self._stage.for_a_while(SESSION_TIMEOUT * (1.2 + self._stage.random.random()))
        worker.thaw()

    async def cut(self) -> None:
        for proxy in self._some_way():
            proxy.cut()

    async def half_cut(self) -> None:
        proxies = self._some_way()
        for proxy in proxies:
            proxy.swallowed.add(self._stage.random.choice(("to server", "to client")))
        await self._stage.for_a_while(1.5 * REQUEST_TIMEOUT)
        for proxy in proxies:
            proxy.heal()

    async def delay(self) -> None:
        proxies = self._some_way()
        for proxy in proxies:
            proxy.delay = 0.2
        await self._stage.for_a_while(4)
        for proxy in proxies:
            proxy.heal()

    async def lose(self, losses: Losses) -> None:
        goal = losses.lost + LOST_REPLIES
        losses.left = LOST_REPLIES
        await self._stage.until(lambda: losses.lost >= goal)

    async def terminate_backends(self) -> None:
        connection = await asyncpg.connect(self._stage.endpoints.postgres_dsn)
        try:
            await connection.fetch(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'waypost'"
            )
        finally:
            await connection.close()

    async def restart_postgres(self) -> None:
        await asyncio.to_thread(self._servers.postgres.restart, immediate=True)

    async def freeze_postgres(self) -> None:
        self._servers.postgres.suspend()
        await self._stage.for_a_while(1.5 * REQUEST_TIMEOUT)
        self._servers.postgres.resume()

    async def kill_broker(self) -> None:
        self._servers.kafka.kill()
        await asyncio.to_thread(self._servers.kafka.restart)

    async def freeze_broker(self) -> None:
        self._servers.kafka.suspend()
        await self._stage.for_a_while(1.5 * REQUEST_TIMEOUT)
        self._servers.kafka.resume()

    def _younger(self) -> WorkerProcess:
        return pick(self._stage.alive[1:], self._stage.random)

    def _some_way(self) -> list[Proxy]:
        return self._ways.named(self._stage.random.choice(("kafka", "postgres", "both")))
