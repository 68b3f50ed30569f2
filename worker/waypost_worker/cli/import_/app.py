"""``waypost import langgraph``: threads of LangGraph's own savers, as sessions that WaypostSaver reads."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from cyclopts import App, Parameter

from waypost_worker.cli.support.connections import (
    kafka_errors,
    kafka_options,
    postgres_errors,
    require_topics,
)
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, FAILED, USAGE, CommandError, note, show_fields
from waypost_worker.cli.support.progress import WorkProgress
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.keys import make_codec
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost.adapters.backend import Backend
    from waypost.adapters.langgraph_import import Outcome, Source, ThreadImport

app = App(
    name="import",
    help="Import threads from other checkpointers.",
)
_AT_ONCE: Final = 8
_T = TypeVar("_T")


@app.command
def langgraph(
    *,
    source: Annotated[
        str, Parameter(name="--from", help="postgresql://… of a PostgresSaver, or an SQLite file")
    ],
    thread: Annotated[list[str] | None, Parameter(help="only this thread; may be repeated")] = None,
    dry_run: Annotated[bool, Parameter(help="show what would be imported, and send nothing")] = False,
    timeout: TimeoutFlag = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Import threads of LangGraph's PostgresSaver or SqliteSaver.

    WaypostSaver continues them where they are. The source is only read, and
    values are copied as they are encoded: no object in them is built. At the
    end each thread is read again on both sides and compared: checkpoints,
    values, parents, metadata and pending writes.

    It is safe to interrupt and to run again: existing records are skipped, and new ones in the source are added. Point
    agents at Waypost once an import has ended with 'different 0'.

    A thread with something that can't be read is named and left out as a
    whole, and the exit code is 1. 'types' lists what WaypostSaver must be
    given as allowed_types.

    For example:

      waypost import langgraph --from postgresql://localhost/agents --dry-run
      waypost import langgraph --from checkpoints.sqlite --thread thread-1
    """
    found = asyncio.run(_run(common.settings(), source, thread, dry_run, timeout))
    show_fields(found, common.output)
    return FAILED if found["left_out"] or found.get("different") else DONE


async def _run(
    settings: Settings, place: str, wanted: list[str] | None, dry_run: bool, timeout: float
) -> dict[str, Any]:
    try:
        from waypost.adapters.langgraph_import import ThreadImport, all_types, opened
    except ImportError as error:
        raise CommandError(f"{error}. Install it with pip install 'waypost[langgraph]'") from None

    async with opened(place) as source, _backend(settings, timeout) as backend:
        counts = await _threads(source, wanted)
        work = ThreadImport(backend, source)
        outcomes = await _take(work, counts, dry_run)
        done = [each for each in outcomes if not each.problems]
        for outcome in outcomes:
            _say(outcome.thread_id, outcome.problems)
        about: dict[str, Any] = {
            "threads": len(outcomes),
            "would_import" if dry_run else "imported": sum(each.imported for each in done),
            "skipped": sum(each.present for each in done),
            "left_out": len(outcomes) - len(done),
        }
        if not dry_run:
            about["different"] = await _compare(work, done)
        return {**about, "types": all_types(done)}


async def _threads(source: "Source", wanted: list[str] | None) -> dict[str, int]:
    counts = dict(await source.threads())
    if wanted is None:
        return counts
    if missing := [each for each in wanted if each not in counts]:
        raise CommandError(f"The source has no thread {missing[0]!r}. Nothing was imported.", USAGE)
    return {each: counts[each] for each in wanted}


async def _take(work: "ThreadImport", counts: dict[str, int], dry_run: bool) -> "list[Outcome]":
    doing = "checking" if dry_run else "importing"
    with WorkProgress(doing, sum(counts.values()), "checkpoints") as progress:

        async def one(thread_id: str) -> "Outcome":
            outcome = await work.take(thread_id, dry_run=dry_run)
            progress.advanced(0, counts[thread_id])
            return outcome

        return await _each(one, counts)


async def _compare(work: "ThreadImport", done: "list[Outcome]") -> int:
    total = sum(each.imported + each.present for each in done)
    with WorkProgress("comparing", total, "checkpoints") as progress:

        async def one(outcome: "Outcome") -> list[str]:
            found = await work.compare(outcome.thread_id)
            progress.advanced(0, outcome.imported + outcome.present)
            return found

        told = await _each(one, done)
    for outcome, problems in zip(done, told, strict=True):
        _say(outcome.thread_id, problems)
    return sum(bool(problems) for problems in told)


async def _each(work: Callable[[Any], Awaitable[_T]], items: Iterable[Any]) -> list[_T]:
    """Do the same for each, a few at a time. Return the results in order."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Any) -> _T:
        async with room:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _say(thread_id: str, problems: Iterable[str]) -> None:
    for problem in problems:
        note(f"thread {thread_id!r}: {problem}")


@asynccontextmanager
async def _backend(settings: Settings, timeout: float) -> "AsyncIterator[Backend]":
    from waypost.adapters.backend import Backend

    await require_topics(settings)
    async with (
        kafka_errors(settings),
        postgres_errors(settings),
        Backend(
            settings.bootstrap_servers,
            settings.postgres_dsn.get_secret_value(),
            topic_prefix=settings.topic_prefix,
            schema=settings.postgres_schema,
            timeout=timeout,
            publisher_options={"kafka_options": kafka_options(settings)},
            reader_options={"statement_cache_size": settings.postgres_statement_cache},
            codec=make_codec(settings),
        ) as backend,
    ):
        yield backend
