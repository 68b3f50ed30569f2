"""The checks of ``waypost doctor`` that a read-only role can do, at most once per minute."""

import asyncio
import time
from collections import Counter
from typing import Any, Final

import asyncpg

from waypost.errors import WaypostError
from waypost.kafka.diagnosis import require_access
from waypost_worker.config.settings import Settings
from waypost_worker.findings import Finding
from waypost_worker.kafka.connection import Connection, kafka_errors
from waypost_worker.kafka.topics import check_topics
from waypost_worker.operations.checks import (
    check_brokers,
    clock_finding,
    postgres_clock,
    version_finding,
    worker_findings,
)
from waypost_worker.operations.expiry import check_idle_sessions
from waypost_worker.partition.ports import OwnerError
from waypost_worker.postgres.server_check import check_server

_FRESH_SECONDS: Final = 60.0
_ASK_SECONDS: Final = 5.0


class Checks:
    """Findings about brokers, topics and servers, and when they were made."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._found: tuple[Finding, ...] = ()
        self._at = -_FRESH_SECONDS
        self._asking = asyncio.Lock()

    async def findings(self, workers: Counter[str] | None, lag: int | None) -> tuple[Finding, ...]:
        """Return what was found within the last minute, errors first.

        ``workers`` by version and ``lag`` in commands are None if Kafka does not report them. A failed query is an
        error among the findings.
        """
        async with self._asking:
            if time.monotonic() - self._at >= _FRESH_SECONDS:
                kafka, *postgres = await asyncio.gather(
                    self._kafka(),
                    *(self._postgres(shard, dsn) for shard, dsn in enumerate(self._settings.dsns)),
                )
                self._found = (version_finding(), *kafka, *(one for found in postgres for one in found))
                self._at = time.monotonic()
        of_workers = () if workers is None else worker_findings(workers, self._settings.group_id, lag)
        order = ("error", "warning", "ok")
        return tuple(sorted((*of_workers, *self._found), key=lambda one: order.index(one.level)))

    async def _kafka(self) -> list[Finding]:
        findings: list[Finding] = []
        try:
            async with asyncio.timeout(_ASK_SECONDS), kafka_errors("checking the cluster"):
                await require_access(self._connection.options())
                findings += await check_brokers(self._connection)
                findings += await check_topics(
                    self._connection, self._settings.topics, self._settings.session_timeout
                )
        except (OwnerError, WaypostError, TimeoutError, OSError) as error:
            findings.append(_unasked("kafka", error))
        return findings

    async def _postgres(self, shard: int, dsn: str) -> list[Finding]:
        settings = self._settings
        subject = "postgres" if len(settings.dsns) == 1 else f"shard {shard}: postgres"
        findings: list[Finding] = []
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                connection: Any = await asyncpg.connect(
                    dsn, command_timeout=_ASK_SECONDS, statement_cache_size=settings.postgres_statement_cache
                )
                try:
                    findings += await check_server(
                        connection,
                        pool_size=settings.postgres_pool_size,
                        request_timeout=settings.request_timeout,
                        statement_cache=settings.postgres_statement_cache,
                    )
                    findings.append(clock_finding(subject, await postgres_clock(connection)))
                    findings.append(await check_idle_sessions(connection, settings.postgres_schema))
                finally:
                    await connection.close(timeout=1)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, OSError) as error:
            findings.append(_unasked(subject, error))
        return findings


def _unasked(subject: str, error: Exception) -> Finding:
    message = str(error) or f"no answer within {_ASK_SECONDS:g} s"
    return Finding("error", subject, message, "run 'waypost doctor' for more")
