"""``waypost verify``: is Postgres what the log says?"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter, validators

from waypost_worker.cli.support.connections import kafka_client, kafka_errors, postgres_errors
from waypost_worker.cli.support.databases import STATEMENT_SECONDS, connected
from waypost_worker.cli.support.logs import command_logs, command_partitions, run
from waypost_worker.cli.support.metrics_port import MetricsPort, progress_served
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import (
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
from waypost_worker.cli.support.progress import WorkProgress
from waypost_worker.cli.support.snapshot_storage import AtFlag, signing_of, storage_of
from waypost_worker.config.settings import Settings
from waypost_worker.snapshots.storage import SnapshotError

if TYPE_CHECKING:
    from waypost_worker.recovery.verify.rows import OpenRows
    from waypost_worker.recovery.verify.verification import VerifyReport
    from waypost_worker.snapshots.manifest import Manifest
    from waypost_worker.snapshots.storage import Storage

_COLUMNS: Final = ("partition", "next_offset", "sessions", "checkpoints", "rejected_commands", "differences")
_MEGABYTE: Final = 1024 * 1024
_TABLES: Final = ("sessions", "checkpoints", "recent_commands", "rejected_commands", "outbox")


def verify(
    *,
    sample: Annotated[
        float,
        Parameter(
            help="verify only this fraction of the sessions, chosen by hash",
            validator=validators.Number(gt=0, lte=1),
        ),
    ] = 1.0,
    partition: Annotated[list[int] | None, Parameter(help="only this partition; may be repeated")] = None,
    strict: Annotated[
        bool, Parameter(help="also report rejected commands that are no longer stored")
    ] = False,
    limit: Annotated[
        int,
        Parameter(
            help="maximum number of differences to show", validator=validators.Number(gte=1, lte=100_000)
        ),
    ] = 10,
    from_snapshot: Annotated[
        str | None,
        Parameter(help="start with this snapshot (a name or latest) instead of the beginning of the log"),
    ] = None,
    of_snapshot: Annotated[
        str | None, Parameter(help="verify this snapshot (a name or latest) instead of Postgres")
    ] = None,
    at: AtFlag = None,
    memory: Annotated[
        float,
        Parameter(
            help="megabytes of memory for sessions; more take several passes",
            validator=validators.Number(gt=0),
        ),
    ] = 1024,
    metrics_port: MetricsPort = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Prove that Postgres matches the command topic.

    The log is applied in memory, and every row is compared (data by hash) at one moment per partition. Workers may keep
    running. If the beginning of the log is gone, --from-snapshot starts with a snapshot, and proves that Postgres holds
    the snapshot's state plus everything in the log since. With --of-snapshot, a snapshot is compared with the log
    instead of Postgres.

    Sessions are held without their data. Those of a partition that exceed
    --memory are done in several passes over the log; --sample looks at some
    sessions only.

    The exit code is 0 if everything is equal, 1 if there are differences, and 2 if the state can't be verified.

    For example:

      waypost verify
      waypost verify --sample 0.01 -o json
      waypost verify --schema rebuilt
      waypost verify --from-snapshot latest --at s3://bucket/waypost
      waypost verify --of-snapshot latest --from-snapshot 20261124T120000000Z-1a2b3c
    """
    settings = common.settings()
    options = _Options(sample, partition, strict, limit, int(memory * _MEGABYTE), metrics_port)
    if at is not None and from_snapshot is None and of_snapshot is None:
        raise CommandError("--at says where snapshots are: name one with --from-snapshot", USAGE)
    try:
        base, target = (
            None if name is None else run(_kept(settings, storage_of(settings, at), name))
            for name in (from_snapshot, of_snapshot)
        )
        verdicts = run(_verify(settings, options, base, target))
    except (CommandError, SnapshotError) as error:
        raise CommandError(str(error), USAGE) from None
    _show(verdicts, common.output, *(None if kept is None else kept[1].name for kept in (base, target)))
    return FAILED if any(verdict.differences for verdict in verdicts) else DONE


@dataclass(frozen=True)
class _Options:
    """The validated arguments; ``room`` in bytes."""

    sample: float
    partitions: list[int] | None
    strict: bool
    limit: int
    room: int
    metrics_port: int | None


_Kept = tuple["Storage", "Manifest"]


async def _kept(settings: Settings, storage: "Storage", name: str) -> _Kept:
    """A snapshot that this version knows and that the log still reaches back to, and where it is."""
    from waypost_worker.snapshots.catalog import chosen
    from waypost_worker.snapshots.log_positions import check_in_log
    from waypost_worker.snapshots.restore import check_origin

    manifest = await chosen(storage, name, signing_of(settings))
    check_origin(manifest, settings.topics)
    count = await command_partitions(settings)
    async with kafka_errors(settings):
        await check_in_log(kafka_client(settings), settings.topics, manifest, count)
    return storage, manifest


async def _verify(
    settings: Settings, options: _Options, base: _Kept | None, target: _Kept | None
) -> "list[VerifyReport]":
    from waypost_worker.kafka.results_log import KafkaResultsLog
    from waypost_worker.recovery.shares import share_of
    from waypost_worker.recovery.verify.verification import Verification, VerifyOptions, VerifySources
    from waypost_worker.snapshots.rows import SnapshotRows

    async with kafka_errors(settings), postgres_errors(settings), AsyncExitStack() as stack:
        partitions = await command_partitions(settings)
        wanted = sorted(set(options.partitions or range(partitions)))
        if unknown := [number for number in wanted if not 0 <= number < partitions]:
            raise CommandError(f"there is no partition {unknown[0]}: the topic has {partitions}")
        positions = await _positions(settings) if target is None else _positions_of(target)
        open_snapshot = _rows(settings, target)
        verdicts = []
        began = {} if base is None else _positions_of(base)
        bases = {} if base is None else {number: SnapshotRows(*base, number) for number in began}
        total = sum(max(0, positions.get(number, 0) - began.get(number, 0)) for number in wanted)
        client = kafka_client(settings)
        async with command_logs(settings, partitions, client) as logs:
            with WorkProgress("verify", total, "commands") as progress:
                await stack.enter_async_context(progress_served(progress, settings, options.metrics_port))
                # One at a time, because each holds its sessions in memory.
                for number in wanted:
                    results = KafkaResultsLog(client, settings.topics, number)
                    try:
                        verification = Verification(
                            number,
                            partitions,
                            settings.topics.results,
                            VerifySources(logs[number], results, open_snapshot, bases.get(number)),
                            progress,
                            VerifyOptions(
                                share=share_of(options.sample),
                                strict=options.strict,
                                limit=options.limit,
                                room=options.room,
                            ),
                        )
                        verdicts.append(await verification.run())
                    finally:
                        await asyncio.gather(results.close(), logs[number].close())
        note(f"{progress.done} commands in {progress.seconds:.1f} s, {progress.rate:,.0f} per second")
        return verdicts


def _rows(settings: Settings, target: _Kept | None) -> "OpenRows":
    """Return the state that is compared with the log: Postgres, or a snapshot."""
    from waypost_worker.postgres.verify_rows import Snapshots
    from waypost_worker.snapshots.rows import KeptSnapshots

    if target is not None:
        return KeptSnapshots(*target)
    return Snapshots(
        settings.dsns,
        settings.postgres_schema,
        timeout=settings.request_timeout,
        statement_seconds=STATEMENT_SECONDS,
    )


def _positions_of(kept: _Kept) -> dict[int, int]:
    return {part.partition: part.next_offset for part in kept[1].parts}


async def _positions(settings: Settings) -> dict[int, int]:
    """Return the position of each partition. Raise CommandError if the schema is not of this version."""
    from waypost_worker.postgres.migrate import SchemaError, check_schema
    from waypost_worker.postgres.replay_target import look

    positions: dict[int, int] = {}
    async with connected(settings) as databases:
        for database in databases:
            try:
                await check_schema(database, settings.postgres_schema)
            except SchemaError as error:
                raise CommandError(str(error)) from None
            standing = await look(database, settings.postgres_schema)
            positions |= {row.partition: row.next_offset for row in standing.rows}
    return positions


def _show(verdicts: "list[VerifyReport]", output: Format, base: str | None, target: str | None) -> None:
    from waypost_worker.recovery.verify.verification import shown

    rows = [_row(verdict) for verdict in verdicts]
    differences = [shown(verdict.partition, one) for verdict in verdicts for one in verdict.first]
    count = sum(verdict.differences for verdict in verdicts)
    if output == "json":
        proved = {"equal": count == 0, "from_snapshot": base, "of_snapshot": target}
        show_json({**proved, "partitions": rows, "differences": differences})
        return
    if output == "jsonl":
        for line in [*rows, *differences]:
            show_json_line(line)
        return
    show_rows(rows, output, _COLUMNS)
    for one in differences:
        write(printable(f"{one['table']} {one['key']}: {one['difference']}") + "\n")
    if purged := sum(verdict.purged for verdict in verdicts):
        note(f"{purged} rejected commands of the log are no longer stored: they were retried or purged")
    if count == 0:
        what = "Postgres" if target is None else f"the snapshot {target}"
        said = "the log says" if base is None else f"the snapshot {base} and the log since then say"
        note(f"{what} is what {said}")
    else:
        more = f", {count - len(differences)} more than shown" if count > len(differences) else ""
        note(f"{count} difference{'' if count == 1 else 's'}{more}: 'waypost replay' rebuilds from the log")


def _row(verdict: "VerifyReport") -> dict[str, Any]:
    return {
        "partition": verdict.partition,
        "began": verdict.began,
        "next_offset": verdict.next_offset,
        **{table: verdict.rows.get(table, 0) for table in _TABLES},
        "differences": verdict.differences,
        "purged": verdict.purged,
        "passes": verdict.passes,
        "fingerprint": verdict.fingerprint,
    }
