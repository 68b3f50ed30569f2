"""The cheap part of ``waypost doctor``, at each start of a worker: logged, and in the way only of what is unsafe.

Owns what is asked and how it is logged. The checks are those of the doctor; brokers are not looked at, because a worker
usually may not read their settings.
"""

from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import structlog
from aiokafka.errors import KafkaConnectionError

from waypost_worker.config.settings import Settings
from waypost_worker.findings import Finding
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import check_topics
from waypost_worker.partition.ports import OwnerError, RefusedError, UnavailableError
from waypost_worker.postgres.errors import owner_errors
from waypost_worker.postgres.server_check import check_server

log = structlog.get_logger("waypost.worker")
_LEVELS: Final = {"ok": "debug", "warning": "warning", "error": "error"}


async def check_topics_at_start(settings: Settings, connection: Connection) -> None:
    """Log what is wrong with the topics' settings.

    Raise RefusedError if commands could be lost, and UnavailableError if Kafka can't be reached. A setting that Kafka
    does not reveal is ignored.
    """
    try:
        findings = await check_topics(connection, settings.topics, brokers=False)
    except (UnavailableError, RefusedError) as error:
        if isinstance(error.__cause__, KafkaConnectionError | TimeoutError | OSError):
            raise
        log.warning("start_check_failed", subject="topics", reason=str(error))
        return
    _tell("topics", findings)
    if unsafe := [one for one in findings if one.unsafe]:
        found = "; ".join(f"{one.subject}: {one.message} ({one.fix})" for one in unsafe)
        raise RefusedError(f"Commands could be lost, so no partition is taken. Nothing was changed. {found}")


async def check_database_at_start(settings: Settings, pool: Any, shard: int) -> None:
    """Log what is wrong with a database server. Raises nothing: owners and probes say what a server that fails does."""
    try:
        async with owner_errors(pool), pool.acquire(timeout=settings.request_timeout) as connection:
            findings = await check_server(
                connection,
                pool_size=settings.postgres_pool_size,
                request_timeout=settings.request_timeout,
                statement_cache=settings.postgres_statement_cache,
            )
    except (OwnerError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.warning("start_check_failed", subject="postgres", shard=shard, reason=str(error))
        return
    _tell("postgres", findings, shard=shard)


def _tell(checked: str, findings: Sequence[Finding], **where: int) -> None:
    for one in findings:
        details = {"subject": one.subject, "finding": one.message, **where}
        if one.fix:
            details["fix"] = one.fix
        getattr(log, _LEVELS[one.level])("start_check", **details)
    levels = [one.level for one in findings]
    log.info(
        "start_checked",
        subject=checked,
        **where,
        checks=len(levels),
        warnings=levels.count("warning"),
        errors=levels.count("error"),
    )
