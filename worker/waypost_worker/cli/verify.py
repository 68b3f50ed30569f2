"""``waypost verify``: is Postgres what the log says?"""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter, validators

from waypost_worker.cli.common import NOTHING_GIVEN, Common
from waypost_worker.cli.output import (
    DONE,
    FAILED,
    USAGE,
    CommandError,
    Format,
    note,
    printable,
    show_json,
    show_json_line,
    show_rows,
    write,
)
from waypost_worker.cli.progress_metrics import MetricsPort, progress_served
from waypost_worker.cli.reach import connected, kafka_connection, kafka_errors, postgres_errors
from waypost_worker.cli.recovering import STATEMENT_SECONDS, command_logs, command_partitions, run
from waypost_worker.cli.work_progress import WorkProgress
from waypost_worker.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.recovery.verify import Verdict

_COLUMNS: Final = ("partition", "next_offset", "sessions", "checkpoints", "rejected_commands", "differences")
_TABLES: Final = ("sessions", "checkpoints", "recent_commands", "rejected_commands", "outbox")


def verify(
    *,
    sample: Annotated[
        float,
        Parameter(help="only this share of the sessions, by hash", validator=validators.Number(gt=0, lte=1)),
    ] = 1.0,
    partition: Annotated[list[int] | None, Parameter(help="only this one; may be repeated")] = None,
    strict: Annotated[bool, Parameter(help="refused commands that are not kept any more count, too")] = False,
    limit: Annotated[
        int, Parameter(help="show so many differences", validator=validators.Number(gte=1, lte=100_000))
    ] = 10,
    metrics_port: MetricsPort = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Prove that Postgres is the fold of the command topic.

    The log is folded in memory and every row compared, data by hash, at one
    moment for each partition. Workers may run. A partition's sessions must fit
    into memory, without their data: --sample looks at some sessions only.

    Exit code 0: equal. 1: different. 2: it could not be told.

    For example:

      waypost verify
      waypost verify --sample 0.01 -o json
      waypost verify --schema rebuilt
    """
    settings = common.settings()
    try:
        verdicts = run(_verify(settings, sample, partition, strict, limit, metrics_port))
    except CommandError as error:
        raise CommandError(str(error), USAGE) from None
    _show(verdicts, common.output)
    return FAILED if any(verdict.differences for verdict in verdicts) else DONE


async def _verify(
    settings: Settings,
    sample: float,
    chosen: list[int] | None,
    strict: bool,
    limit: int,
    metrics_port: int | None,
) -> "list[Verdict]":
    from waypost_worker.kafka.results_log import KafkaResultsLog
    from waypost_worker.postgres.snapshot import Snapshots
    from waypost_worker.recovery.sampling import below_of
    from waypost_worker.recovery.verify import Verification

    async with kafka_errors(settings), postgres_errors(settings), AsyncExitStack() as stack:
        partitions = await command_partitions(settings)
        wanted = sorted(set(chosen)) if chosen else list(range(partitions))
        if unknown := [number for number in wanted if not 0 <= number < partitions]:
            raise CommandError(f"there is no partition {unknown[0]}: the topic has {partitions}")
        positions = await _positions(settings)
        open_snapshot = Snapshots(
            settings.postgres_dsn.get_secret_value(),
            settings.postgres_schema,
            timeout=settings.request_timeout,
            statement_seconds=STATEMENT_SECONDS,
        )
        verdicts = []
        total = sum(positions.get(number, 0) for number in wanted)
        async with command_logs(settings, partitions) as logs:
            with WorkProgress("verify", total, "commands") as progress:
                await stack.enter_async_context(progress_served(progress, settings, metrics_port))
                # One after the other: each holds its sessions in memory.
                for number in wanted:
                    results = KafkaResultsLog(kafka_connection(settings), settings.topics, number)
                    try:
                        verification = Verification(
                            number,
                            partitions,
                            settings.topics.results,
                            logs[number],
                            results,
                            open_snapshot,
                            progress,
                            below=below_of(sample),
                            strict=strict,
                            limit=limit,
                        )
                        verdicts.append(await verification.run())
                    finally:
                        await asyncio.gather(results.close(), logs[number].close())
        note(f"{progress.done} commands in {progress.seconds:.1f} s, {progress.rate:,.0f} a second")
        return verdicts


async def _positions(settings: Settings) -> dict[int, int]:
    """How far each partition is; CommandError if the schema is not one of this version."""
    from waypost_worker.postgres.migrate import SchemaError, check_schema
    from waypost_worker.postgres.target import look

    async with connected(settings) as database:
        try:
            await check_schema(database, settings.postgres_schema)
        except SchemaError as error:
            raise CommandError(str(error)) from None
        standing = await look(database, settings.postgres_schema)
    return {row.partition: row.next_offset for row in standing.rows}


def _show(verdicts: "list[Verdict]", output: Format) -> None:
    from waypost_worker.recovery.verify import shown

    rows = [_row(verdict) for verdict in verdicts]
    differences = [shown(verdict.partition, one) for verdict in verdicts for one in verdict.first]
    count = sum(verdict.differences for verdict in verdicts)
    if output == "json":
        show_json({"equal": count == 0, "partitions": rows, "differences": differences})
        return
    if output == "jsonl":
        for line in [*rows, *differences]:
            show_json_line(line)
        return
    show_rows(rows, output, _COLUMNS)
    for one in differences:
        write(printable(f"{one['table']} {one['key']}: {one['difference']}") + "\n")
    if purged := sum(verdict.purged for verdict in verdicts):
        note(f"{purged} refused commands of the log are not kept any more: retried or purged")
    if count == 0:
        note("Postgres is what the log says")
    else:
        more = f", {count - len(differences)} more than shown" if count > len(differences) else ""
        note(f"{count} difference{'' if count == 1 else 's'}{more}: 'waypost replay' rebuilds from the log")


def _row(verdict: "Verdict") -> dict[str, Any]:
    return {
        "partition": verdict.partition,
        "next_offset": verdict.next_offset,
        **{table: verdict.rows.get(table, 0) for table in _TABLES},
        "differences": verdict.differences,
        "purged": verdict.purged,
        "fingerprint": verdict.fingerprint,
    }
