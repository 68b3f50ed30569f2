"""Processes of a replay: some partitions in this process, or all of them spread over child processes.

One process folds on one core, so more processes are faster. A child reads its job as a line of JSON from standard
input, reports progress and outcome as lines on standard output, and ends when its parent does. A replay can be started
again at any time, and processes that overlap are fenced.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson
from pydantic import SecretStr

from waypost.wire.topics import Topics
from waypost_worker.cli.support.connections import kafka_client, kafka_errors, postgres_errors
from waypost_worker.cli.support.databases import stores
from waypost_worker.cli.support.logs import log_maker, run
from waypost_worker.cli.support.output import CommandError
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.kafka.client import ClusterClient
    from waypost_worker.postgres.store import PostgresStore
    from waypost_worker.recovery.replay.partition_replay import Replayed

_LONGEST_LINE: Final = 16 * 1024 * 1024


class Advance(Protocol):
    """Receives progress."""

    def advanced(self, partition: int, commands: int, next_offset: int) -> None:
        """Count this many more committed commands."""
        ...


@dataclass(frozen=True)
class Job:
    """Partitions to replay, each with the offset at which it ends; ``emit_to`` is a topic prefix."""

    ends: list[tuple[int, int]]
    partitions: int
    emit_to: str | None
    compare: bool
    batch_records: int


Outcome = tuple["Replayed", str | None]


async def replay_here(settings: Settings, job: Job, progress: Advance) -> list[Outcome]:
    """Replay a job's partitions in this process. Return the outcome of each, and the reason if it failed."""
    from waypost_worker.partition.ports import OwnerError

    client = kafka_client(settings)

    async def one(partition: int, end: int, store: "PostgresStore") -> Outcome:
        work = _work(settings, client, job, partition, end, store, progress)
        try:
            return await work.run(), None
        except OwnerError as error:
            return work.outcome, f"partition {partition}: {error}"

    async with stores(settings, [partition for partition, _ in job.ends]) as opened:
        return list(
            await asyncio.gather(*(one(partition, end, opened.of(partition)) for partition, end in job.ends))
        )


async def replay_spread(settings: Settings, jobs: Sequence[Job], progress: Advance) -> list[Outcome]:
    """Replay each job in a separate process."""
    outcomes = await asyncio.gather(*(_in_a_child(settings, job, progress) for job in jobs))
    return sorted((one for found in outcomes for one in found), key=lambda one: one[0].partition)


def _work(
    settings: Settings,
    client: "ClusterClient",
    job: Job,
    partition: int,
    end: int,
    store: "PostgresStore",
    progress: Advance,
) -> Any:
    """Replays one partition."""
    from waypost_worker.kafka.results_log import KafkaResultsLog
    from waypost_worker.partition.ownership import Limits
    from waypost_worker.partition.ports import Ports
    from waypost_worker.recovery.replay.comparison import CompareOptions
    from waypost_worker.recovery.replay.partition_replay import PartitionReplay, ReplayLimits, ReplayPorts
    from waypost_worker.recovery.replay.reemit import ReemittingReplay
    from waypost_worker.runtime.clock import SystemClock

    topics = settings.topics if job.emit_to is None else Topics(job.emit_to)
    make_log = log_maker(settings, partition, client)
    cache_items = max(1000, settings.cache_items // job.partitions)

    def make_results() -> KafkaResultsLog:
        return KafkaResultsLog(client, topics, partition)

    if job.emit_to is not None:
        limits = Limits(cache_items=cache_items)
        ports = Ports(make_log, make_results, store, SystemClock())
        return ReemittingReplay(partition, topics.results, ports, end, progress, limits)
    return PartitionReplay(
        partition,
        topics.results,
        ReplayPorts(make_log, make_results, store),
        end,
        progress,
        ReplayLimits(job.batch_records, cache_items=cache_items),
        CompareOptions(job.compare, settings.accept_trimmed_results),
    )


async def _in_a_child(settings: Settings, job: Job, progress: Advance) -> list[Outcome]:
    from waypost_worker.recovery.replay.partition_replay import Replayed

    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "waypost_worker.cli.recovery.processes",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    if child.stdin is None or child.stdout is None:
        raise AssertionError("a child has pipes")
    try:
        # The pipe stays open: when it closes, the child knows that its parent is gone.
        child.stdin.write(orjson.dumps([_plain(settings), asdict(job)]) + b"\n")
        async for line in child.stdout:
            told = orjson.loads(line)
            if "error" in told:
                raise CommandError(told["error"])
            if "outcomes" in told:
                return [(Replayed(**fields), error) for fields, error in told["outcomes"]]
            progress.advanced(told["partition"], told["commands"], told["next_offset"])
        raise CommandError(
            f"a process of the replay ended with code {await child.wait()}. Run the command again to "
            "continue from there"
        )
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def _plain(settings: Settings) -> dict[str, Any]:
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in values.items()
        if value is not None
    }


class _Telling:
    """Reports to a parent process."""

    def advanced(self, partition: int, commands: int, next_offset: int) -> None:
        """One line."""
        _tell({"partition": partition, "commands": commands, "next_offset": next_offset})


def _tell(fields: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(fields) + b"\n")
    sys.stdout.buffer.flush()


def _watch_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


def main() -> None:
    """Do the job that is read from standard input."""
    fields, given = orjson.loads(sys.stdin.buffer.readline())
    settings = Settings(**fields)
    job = Job(**{**given, "ends": [tuple(one) for one in given["ends"]]})
    threading.Thread(target=_watch_parent, name="parent", daemon=True).start()

    async def work() -> list[Outcome]:
        async with kafka_errors(settings), postgres_errors(settings):
            return await replay_here(settings, job, _Telling())

    try:
        outcomes = run(work())
    except CommandError as error:
        _tell({"error": str(error)})
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    else:
        _tell({"outcomes": [[asdict(one), error] for one, error in outcomes]})


if __name__ == "__main__":
    main()
