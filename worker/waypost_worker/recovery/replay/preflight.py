"""Conditions that must hold before a replay touches its target, and the plan of what it will do. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from waypost_worker.partition.acquire import check_log
from waypost_worker.partition.foreign import without_foreign
from waypost_worker.partition.ports import CommandLog, ForeignRecord, RefusedError, ResultsLog
from waypost_worker.recovery.log_scan import check_last_answer
from waypost_worker.recovery.replay.comparison import CompareOptions, Comparison

_EMITTING: Final = "Waypost replay: emits to "


class PartitionRow(NamedTuple):
    """A partition as the target has it. ``worked`` says that a worker, not only a replay, has owned it."""

    partition: int
    partitions: int
    next_offset: int
    anchor: bytes | None
    emitted: int
    results_offset: int
    worked: bool
    foreign_results: Sequence[ForeignRecord] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """A target as it is. ``exists`` is whether Waypost's tables are there, ``holds_rows`` whether any but those of
    ``partitions`` has rows, ``holds_others`` whether tables that are not Waypost's are, ``mark`` the schema's comment.
    """

    exists: bool
    holds_rows: bool
    holds_others: bool
    rows: Sequence[PartitionRow]
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """The plan for one partition: commands from ``begin`` up to ``end``. Results up to ``answered`` are in the topic,
    and those from ``first_compared`` on are compared; later ones will be pending.
    """

    partition: int
    begin: int
    end: int
    first_compared: int
    answered: int


@dataclass(frozen=True, slots=True)
class ResultsPlan:
    """The results of a partition that will be read; ``log`` says whether there is a command topic to continue with."""

    partition: int
    begin: int
    end: int
    log: bool


def emitting_mark(topic: str) -> str:
    """Return the mark that a replay that emits leaves on its target."""
    return f"{_EMITTING}{topic}"


def check_target(
    standing: Standing, partitions: int, schema: str, *, onto_backup: bool, emit_to: str | None
) -> None:
    """Raise RefusedError unless the target is empty, or this replay's own, or a backup to continue.

    A replay that emits (to the topic ``emit_to``) owns partitions as workers do, and is distinguished from them by its
    mark: on a workers' database, it would store positions in a different results topic than theirs.
    """
    wanted = None if emit_to is None else emitting_mark(emit_to)
    found = standing.mark if (standing.mark or "").startswith(_EMITTING) else None
    if standing.rows and found != wanted:
        raise RefusedError(
            f"the schema {schema!r} was made by a replay that {found.removeprefix('Waypost replay: ')}: "
            "nothing was changed; continue with the same --emit-to, or name an empty schema with --schema"
            if found is not None
            else f"the schema {schema!r} was not made by a replay with --emit-to {emit_to}: nothing was "
            "changed; name "
            "an empty one with --schema"
        )
    if not standing.exists:
        if standing.holds_others:
            raise RefusedError(
                f"the schema {schema!r} has tables that are not Waypost's: nothing was changed; name another "
                "with --schema"
            )
        if onto_backup:
            raise RefusedError(
                f"there is no Waypost schema {schema!r}, so there is no backup to continue; see --schema, "
                "--postgres-dsn"
            )
        return
    if standing.holds_rows and not standing.rows:
        raise RefusedError(
            f"the schema {schema!r} holds sessions, but no position in any log, so their origin is unknown: "
            "nothing was changed; empty it, or name another with --schema"
        )
    for row in standing.rows:
        if row.partitions != partitions or row.partition >= partitions:
            raise RefusedError(
                f"the schema {schema!r} was created for {row.partitions} partitions, the command topic has "
                f"{partitions}: it belongs to another log. Nothing was changed; see --topic-prefix and --schema"
            )
        if row.worked and not (onto_backup or emit_to):
            raise RefusedError(
                f"workers have worked on the schema {schema!r}. Nothing was changed. Name an empty one with "
                "--schema; or, if this is a restored backup and all workers are stopped, pass --onto-backup"
            )


async def plan_partition(
    partition: int,
    row: PartitionRow | None,
    end: int,
    log: CommandLog,
    results: ResultsLog | None,
    compare: CompareOptions | None,
) -> PartitionPlan:
    """The plan of one partition; RefusedError if log, results or target do not go together.

    ``results`` are those to compare with or, without ``compare``, those to emit to; None if that topic must be created.
    """
    begin, anchor = (0, None) if row is None else (row.next_offset, row.anchor)
    await check_log(log, begin, anchor)
    if begin > end:
        raise RefusedError(
            f"partition {partition} of the target is at offset {begin} already, behind {end}, where it is to "
            "end: a replay goes forward only. Nothing was changed; name an empty schema with --schema"
        )
    emitted, results_offset = (-1, 0) if row is None else (row.emitted, row.results_offset)
    if compare is None:
        held = 0 if results is None else (await results.bounds())[1]
        if results_offset > held:
            raise RefusedError(
                f"partition {partition} of the target knows {results_offset} results, and the topic to emit to "
                f"has {held}: the target was made with another results topic. Nothing was changed; name an empty "
                "schema with --schema"
            )
    if results is not None and row is not None:
        results = without_foreign(results, row.foreign_results)
    if results is not None and compare is not None and compare.contents:
        await check_last_answer(log, results, begin)
    if results is None or compare is None or begin == end:
        return PartitionPlan(partition, begin, end, begin, end - 1)
    comparison = Comparison(results, emitted, results_offset, begin, compare)
    await comparison.open(end - 1)
    return PartitionPlan(partition, begin, end, max(begin, comparison.silent_below), comparison.highest)


async def plan_from_results(
    partition: int, row: PartitionRow | None, results: ResultsLog, has_log: bool
) -> ResultsPlan:
    """The plan of a rebuild from results; RefusedError if target and results do not go together."""
    start, end = await results.bounds()
    known = 0 if row is None else row.results_offset
    if known > end:
        raise RefusedError(
            f"partition {partition} of the target knows {known} results, and the results topic has {end}: it was "
            "recreated or truncated, or is another deployment's. Nothing was changed; see --topic-prefix"
        )
    return ResultsPlan(partition, max(start, known), end, has_log)
