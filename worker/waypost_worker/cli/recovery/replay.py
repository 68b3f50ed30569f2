"""``waypost replay``: Postgres, rebuilt from the command topic."""

import asyncio
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter, validators

from waypost.errors import InvalidCommandError
from waypost.model.times import parse_micros
from waypost.wire.topics import Topics
from waypost_worker.cli.recovery.from_results import replay_results
from waypost_worker.cli.support.connections import (
    kafka_client,
    kafka_connection,
    kafka_errors,
    postgres_errors,
    topic_partitions,
)
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.logs import command_logs, command_partitions, run
from waypost_worker.cli.support.metrics_port import MetricsPort, progress_served
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, Format, note, show_rows
from waypost_worker.cli.support.progress import WorkProgress
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.cli.recovery.processes import Outcome
    from waypost_worker.kafka.command_log import KafkaCommandLog
    from waypost_worker.recovery.replay.preflight import PartitionPlan

_RESULTS: Final = ".results"
# Below this, a process takes longer to start than it saves; with more processes than this, Postgres is the limit.
_WORTH_PROCESSES: Final = 100_000
_MOST_PROCESSES: Final = 8
_PLANNED: Final = ("partition", "begin", "end", "commands", "first_compared", "owed")
_REPLAYED: Final = ("partition", "began", "next_offset", "commands", "compared", "owed")


@dataclass(frozen=True)
class _Options:
    """The validated arguments."""

    until_micros: int | None
    until_places: list[tuple[int, int]]
    until_checkpoint: str | None
    emit_to: Topics | None
    compare: bool
    onto_backup: bool
    batch_records: int
    processes: int | None
    metrics_port: int | None


def replay(
    *,
    until_offset: Annotated[
        list[str] | None, Parameter(help="partition/offset of the last command; may be repeated")
    ] = None,
    until_time: Annotated[
        str | None, Parameter(help="replay only commands before this time, in RFC 3339")
    ] = None,
    until_checkpoint: Annotated[
        str | None, Parameter(help="replay up to the command that created this checkpoint, session:number")
    ] = None,
    emit_to: Annotated[str | None, Parameter(help="emit all results into this topic, NAME.results")] = None,
    no_compare: Annotated[bool, Parameter(help="don't compare with the results topic")] = False,
    from_results: Annotated[
        bool, Parameter(help="rebuild from the results topic; anything else is lost, and listed")
    ] = False,
    onto_backup: Annotated[
        bool, Parameter(help="continue from a restored backup; stop all workers first")
    ] = False,
    batch_records: Annotated[
        int,
        Parameter(
            help="maximum number of commands in one transaction",
            validator=validators.Number(gte=1, lte=100_000),
        ),
    ] = 10_000,
    processes: Annotated[
        int | None,
        Parameter(
            help="number of processes (default: two per core if that is faster)",
            validator=validators.Number(gte=1, lte=64),
        ),
    ] = None,
    dry_run: Annotated[bool, Parameter(help="check everything, show the plan, and change nothing")] = False,
    metrics_port: MetricsPort = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Rebuild Postgres from the command topic.

    The target is an empty schema (--schema) or database (--postgres-dsn), or several databases. All partitions are
    rebuilt in parallel. A replay that was killed continues where it was when you run it again. Results are compared
    with the results topic, not emitted again; results that were never emitted are kept for the next worker to emit.

    With --until-... the target becomes what Postgres was at that command or
    time: other partitions are rebuilt up to the same time. Every command that
    reads looks at it with --schema.

    For example:

      waypost replay --postgres-dsn postgresql://db/rebuilt
      waypost replay --schema before --until-time 2026-11-24T09:00:00Z
      waypost replay --schema at_12 --until-checkpoint session-1:12
      waypost replay --schema copy --emit-to copy.results
      waypost replay --schema rebuilt --from-results --dry-run
    """
    if from_results:
        if until_offset or until_time or until_checkpoint or emit_to or no_compare:
            raise CommandError("--from-results goes with --onto-backup, --dry-run and --schema only", USAGE)
        return run(replay_results(common.settings(), onto_backup, dry_run, metrics_port, common.output))
    options = _Options(
        *_until(until_offset or [], until_time, until_checkpoint),
        None if emit_to is None else _topics(emit_to),
        not no_compare,
        onto_backup,
        batch_records,
        processes,
        metrics_port,
    )
    settings = common.settings()
    return run(_replay(settings, options, dry_run, common.output))


def _until(
    offsets: list[str], time: str | None, checkpoint: str | None
) -> tuple[int | None, list[tuple[int, int]], str | None]:
    if sum((bool(offsets), time is not None, checkpoint is not None)) > 1:
        raise CommandError("pass one of --until-offset, --until-time and --until-checkpoint", USAGE)
    try:
        micros = None if time is None else parse_micros(time)
    except ValueError as error:
        raise CommandError(f"--until-time: {error}", USAGE) from None
    return micros, [_place(text) for text in offsets], checkpoint


def _topics(emit_to: str) -> Topics:
    if not emit_to.endswith(_RESULTS):
        raise CommandError(
            f"--emit-to {emit_to!r} must end in {_RESULTS}, so that workers with the prefix before it can "
            "continue from there",
            USAGE,
        )
    try:
        return Topics(emit_to.removesuffix(_RESULTS))
    except InvalidCommandError as error:
        raise CommandError(f"--emit-to: {error.message}", USAGE) from None


def _place(text: str) -> tuple[int, int]:
    partition, slash, offset = text.partition("/")
    if not (slash and partition.isdecimal() and offset.isdecimal() and len(partition + offset) < 30):
        raise CommandError(f"--until-offset {text!r} is not partition/offset, which looks like 2/1841", USAGE)
    return int(partition), int(offset)


async def _replay(settings: Settings, options: _Options, dry_run: bool, output: Format) -> int:
    if options.emit_to is not None and options.emit_to.results == settings.topics.results:
        raise CommandError(
            f"{settings.topics.results!r} is the topic to which workers emit, and results would be emitted "
            "twice. Name another topic",
            USAGE,
        )
    async with kafka_errors(settings), postgres_errors(settings):
        plans = await _plan(settings, options)
        total = sum(plan.end - plan.begin for plan in plans)
        if dry_run:
            show_rows([_planned(plan) for plan in plans], output, _PLANNED)
            note(f"{total} commands would be replayed; nothing was changed")
            return DONE
        await _prepare(settings, options, len(plans))
        with WorkProgress("replay", total, "commands") as progress:
            try:
                async with progress_served(progress, settings, options.metrics_port):
                    outcomes = await _run(settings, options, plans, progress)
            except asyncio.CancelledError:
                note(
                    f"replay: stopped after {progress.done} commands. Run the command again to continue "
                    "from there"
                )
                raise
    _show(outcomes, output)
    note(f"{progress.done} commands in {progress.seconds:.1f} s, {progress.rate:,.0f} per second")
    failures = [error for _, error in outcomes if error is not None]
    if failures:
        more = f" ({len(failures) - 1} more partitions failed)" if len(failures) > 1 else ""
        raise CommandError(f"{failures[0]}{more}")
    if owed := sum(one.owed for one, _ in outcomes):
        note(f"{owed} results were never emitted; the next worker on this schema emits them")
    return DONE


async def _plan(settings: Settings, options: _Options) -> "list[PartitionPlan]":
    """Everything that can be refused is refused here, before the target is touched."""
    from waypost_worker.kafka.results_log import KafkaResultsLog
    from waypost_worker.postgres.replay_target import look
    from waypost_worker.postgres.shards import check_set
    from waypost_worker.recovery.replay.comparison import CompareOptions
    from waypost_worker.recovery.replay.preflight import check_target, plan_partition

    partitions = await command_partitions(settings)
    client = kafka_client(settings)
    async with command_logs(settings, partitions, client) as logs:
        ends = await _ends(options, logs)
        async with connected(settings) as databases:
            await check_set(databases.connections, settings.postgres_schema)
            standing = [await look(database, settings.postgres_schema) for database in databases]
        for one in standing:
            check_target(
                one,
                partitions,
                settings.postgres_schema,
                onto_backup=options.onto_backup,
                emit_to=None if options.emit_to is None else options.emit_to.results,
            )
        rows = {row.partition: row for one in standing for row in one.rows}
        topics = options.emit_to or settings.topics
        compare = None
        if options.emit_to is None:
            compare = CompareOptions(options.compare, settings.accept_trimmed_results)
        held = await topic_partitions(settings, topics)
        results = [
            KafkaResultsLog(client, topics, partition) for partition in range(held.get(topics.results, 0))
        ]
        try:
            return list(
                await asyncio.gather(
                    *(
                        plan_partition(
                            partition,
                            rows.get(partition),
                            ends[partition],
                            logs[partition],
                            results[partition] if partition < len(results) else None,
                            compare,
                        )
                        for partition in range(partitions)
                    )
                )
            )
        finally:
            await asyncio.gather(*(one.close() for one in results))


async def _ends(options: _Options, logs: "dict[int, KafkaCommandLog]") -> dict[int, int]:
    from waypost_worker.recovery.replay.until import (
        LogPosition,
        find_checkpoint,
        until_end,
        until_places,
        until_time,
    )

    if options.until_micros is not None:
        return await until_time(logs, options.until_micros)
    if options.until_checkpoint is not None:
        return await until_places(logs, [await find_checkpoint(logs, options.until_checkpoint)])
    if options.until_places:
        return await until_places(logs, [LogPosition(*place) for place in options.until_places])
    return await until_end(logs)


async def _prepare(settings: Settings, options: _Options, partitions: int) -> None:
    from waypost_worker.kafka.topics import create_results_topic
    from waypost_worker.postgres.migrate import migrate
    from waypost_worker.postgres.replay_target import mark
    from waypost_worker.postgres.shards import note_places
    from waypost_worker.recovery.replay.preflight import emitting_mark

    if options.emit_to is not None:
        await create_results_topic(kafka_connection(settings), options.emit_to, partitions)
    async with connected(settings) as databases:
        for database in databases:
            await migrate(database, settings.postgres_schema)
            if options.emit_to is not None:
                await mark(database, settings.postgres_schema, emitting_mark(options.emit_to.results))
        await note_places(databases.connections, settings.postgres_schema)


async def _run(
    settings: Settings, options: _Options, plans: "list[PartitionPlan]", progress: WorkProgress
) -> "list[Outcome]":
    from waypost_worker.cli.recovery.processes import Job, replay_here, replay_spread

    total = sum(plan.end - plan.begin for plan in plans)
    processes = options.processes or _worth(total)
    # The longest first, so that each process gets its share.
    ordered = sorted(plans, key=lambda plan: plan.begin - plan.end)
    jobs = [
        Job(
            [(plan.partition, plan.end) for plan in ordered[at::processes]],
            len(plans),
            None if options.emit_to is None else options.emit_to.prefix,
            options.compare,
            options.batch_records,
        )
        for at in range(min(processes, len(plans)))
    ]
    if len(jobs) == 1:
        outcomes = await replay_here(settings, jobs[0], progress)
        return sorted(outcomes, key=lambda one: one[0].partition)
    return await replay_spread(settings, jobs, progress)


def _worth(commands: int) -> int:
    """Return how many processes are worthwhile. Two per core: partitions do not divide evenly, and a process that waits
    for Postgres leaves its core to another one.
    """
    return 1 if commands < _WORTH_PROCESSES else min(_MOST_PROCESSES, 2 * len(os.sched_getaffinity(0)))


def _planned(plan: "PartitionPlan") -> dict[str, Any]:
    commands = plan.end - plan.begin
    return {**asdict(plan), "commands": commands, "owed": min(max(0, plan.end - 1 - plan.answered), commands)}


def _show(outcomes: "list[Outcome]", output: Format) -> None:
    rows = [{**asdict(one), "error": error} for one, error in outcomes]
    emitted = any(one.emitted for one, _ in outcomes)
    show_rows(rows, output, (*_REPLAYED, "emitted") if emitted else _REPLAYED)
