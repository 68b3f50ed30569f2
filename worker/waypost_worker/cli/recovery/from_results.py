"""``waypost replay --from-results``: checkpoints, rebuilt where only their results are left."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from waypost_worker.cli.support.connections import (
    kafka_client,
    kafka_errors,
    postgres_errors,
    topic_partitions,
)
from waypost_worker.cli.support.databases import connected, stores
from waypost_worker.cli.support.logs import log_maker
from waypost_worker.cli.support.metrics_port import progress_served
from waypost_worker.cli.support.output import DONE, CommandError, Format, note, show_rows
from waypost_worker.cli.support.progress import WorkProgress
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.recovery.replay.from_results import Rebuilt

_COLUMNS: Final = ("partition", "began", "next_offset", "results", "missing", "lost_imports", "lost_refused")
_SHOWN: Final = 5


async def replay_results(
    settings: Settings, onto_backup: bool, dry_run: bool, metrics_port: int | None, output: Format
) -> int:
    """Rebuild all partitions; the exit code."""
    from waypost_worker.postgres.migrate import migrate
    from waypost_worker.postgres.shards import note_places

    async with kafka_errors(settings), postgres_errors(settings):
        partitions, total = await _plan(settings, onto_backup)
        if dry_run:
            note(f"{total} results of {len(partitions)} partitions would be read; nothing was changed")
            show_rows([asdict(one) for one in partitions], output, ("partition", "begin", "end", "log"))
            return DONE
        async with connected(settings) as databases:
            for database in databases:
                await migrate(database, settings.postgres_schema)
            await note_places(databases.connections, settings.postgres_schema)
        with WorkProgress("rebuild", total, "results") as progress:
            async with progress_served(progress, settings, metrics_port):
                outcomes = await _run(settings, partitions, progress)
    show_rows([_row(one, error) for one, error in outcomes], output, _COLUMNS)
    _tell([one for one, _ in outcomes], settings)
    failures = [error for _, error in outcomes if error is not None]
    if failures:
        raise CommandError(failures[0])
    return DONE


async def _plan(settings: Settings, onto_backup: bool) -> tuple[list[Any], int]:
    from waypost_worker.kafka.results_log import KafkaResultsLog
    from waypost_worker.postgres.replay_target import look
    from waypost_worker.postgres.shards import check_set
    from waypost_worker.recovery.replay.preflight import check_target, plan_from_results

    held = await topic_partitions(settings)
    count = held.get(settings.topics.results)
    if count is None:
        raise CommandError(
            f"the topic {settings.topics.results!r} does not exist on {settings.bootstrap_servers}; nothing was "
            "changed; see --topic-prefix"
        )
    async with connected(settings) as databases:
        await check_set(databases.connections, settings.postgres_schema)
        standing = [await look(database, settings.postgres_schema) for database in databases]
    for one in standing:
        check_target(one, count, settings.postgres_schema, onto_backup=onto_backup, emit_to=None)
    rows = {row.partition: row for one in standing for row in one.rows}
    plans = []
    client = kafka_client(settings)
    for partition in range(count):
        results = KafkaResultsLog(client, settings.topics, partition)
        try:
            has_log = held.get(settings.topics.commands) == count
            plans.append(await plan_from_results(partition, rows.get(partition), results, has_log))
        finally:
            await results.close()
    return plans, sum(plan.end - plan.begin for plan in plans)


async def _run(
    settings: Settings, plans: list[Any], progress: WorkProgress
) -> "list[tuple[Rebuilt, str | None]]":
    from waypost_worker.kafka.results_log import KafkaResultsLog
    from waypost_worker.partition.ports import OwnerError
    from waypost_worker.postgres.store import PostgresStore
    from waypost_worker.recovery.replay.from_results import FromResults, FromResultsPorts
    from waypost_worker.recovery.replay.partition_replay import ReplayLimits

    client = kafka_client(settings)

    async def one(plan: Any, store: PostgresStore) -> "tuple[Rebuilt, str | None]":
        partition = plan.partition
        ports = FromResultsPorts(
            log_maker(settings, partition, client) if plan.log else None,
            lambda: KafkaResultsLog(client, settings.topics, partition),
            store,
        )
        limits = ReplayLimits(cache_items=max(1000, settings.cache_items // len(plans)))
        work = FromResults(partition, len(plans), ports, progress, limits)
        try:
            return await work.run(), None
        except OwnerError as error:
            return work.outcome, f"partition {partition}: {error}"

    async with stores(settings, [plan.partition for plan in plans]) as opened:
        return list(await asyncio.gather(*(one(plan, opened.of(plan.partition)) for plan in plans)))


def _row(one: "Rebuilt", error: str | None) -> dict[str, Any]:
    return {
        "partition": one.partition,
        "began": one.began,
        "next_offset": one.next_offset,
        "results": one.results,
        "missing": one.missing,
        "lost_imports": len(one.lost.imported),
        "lost_imported_ids": list(one.lost.imported),
        "lost_refused": one.lost.refused,
        "lost_unknown": one.lost.unknown,
        "log_continues": one.log_continues,
        "error": error,
    }


def _tell(outcomes: "list[Rebuilt]", settings: Settings) -> None:
    """Describe what could not be rebuilt."""
    imported = [identifier for one in outcomes for identifier in one.lost.imported]
    if imported:
        more = ", …" if len(imported) > _SHOWN else ""
        note(
            f"{len(imported)} imported checkpoints are lost, because results don't contain their data: "
            f"{', '.join(imported[:_SHOWN])}{more}"
        )
    if refused := sum(one.lost.refused for one in outcomes):
        note(
            f"{refused} rejected commands can't be kept, because their results contain the reason but not "
            "the command"
        )
    if missing := sum(one.missing for one in outcomes):
        unknown = sum(one.lost.unknown for one in outcomes)
        note(
            f"retention removed {missing} results, and data that only they contained is lost; {unknown} "
            "later changes concern unknown checkpoints"
        )
    if stuck := [str(one.partition) for one in outcomes if one.results and not one.log_continues]:
        note(
            f"the command topic does not continue where the results of partition {', '.join(stuck)} end, so "
            "workers would refuse it. To move to new topics, run: waypost topics adopt --topic-prefix NEW"
            f"{'' if settings.postgres_schema == 'waypost' else ' --schema ' + settings.postgres_schema}"
        )
