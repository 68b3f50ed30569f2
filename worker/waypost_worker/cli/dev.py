"""``waypost dev``: a real Kafka, a real Postgres and workers, on a laptop."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from waypost.topics import Topics
from waypost_worker.cli.common import run
from waypost_worker.cli.output import DONE, FAILED, CommandError, note
from waypost_worker.devserver import DevServerError, Endpoints, Servers

_STOP_SECONDS = 25


def dev(
    *,
    state_dir: Annotated[Path | None, Parameter(help="where data is kept (default .waypost)")] = None,
    ephemeral: Annotated[bool, Parameter(help="keep nothing")] = False,
    workers: Annotated[int, Parameter(help="worker processes, 0 for none")] = 1,
    partitions: Annotated[int, Parameter(help="partitions of new topics")] = 3,
    topic_prefix: Annotated[str, Parameter(help="prefix of the two topics")] = "waypost",
    kafka_port: Annotated[int, Parameter(help="0 lets the system choose")] = 0,
    postgres_port: Annotated[int, Parameter(help="0 lets the system choose")] = 0,
) -> int:
    """Start an embedded Kafka and Postgres, make topics and schema, and run workers, until Ctrl-C.

    Needs neither Docker nor Java. The first start fetches Kafka (44 MB) and takes about half a minute.
    endpoints.json in the state directory says where the servers are.

    For example:

      waypost dev --ephemeral --workers 2
    """
    if ephemeral and state_dir is not None:
        raise CommandError("--ephemeral keeps nothing, so it can't be combined with --state-dir", 2)
    if workers < 0 or partitions < 1:
        raise CommandError("--workers must be at least 0 and --partitions at least 1", 2)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    progress = _Progress()
    directory = None if ephemeral else (state_dir or Path(".waypost"))
    servers = Servers(directory, kafka_port=kafka_port, postgres_port=postgres_port, progress=progress.show)
    try:
        note("starting Kafka and Postgres …")
        servers.start()
        progress.end()
        endpoints = servers.endpoints
        run(prepare(endpoints, Topics(topic_prefix), partitions))
        children = [_start_worker(endpoints, topic_prefix) for _ in range(workers)]
        _banner(endpoints, servers.state_dir, topic_prefix, workers)
        try:
            return _until(stop, children)
        finally:
            note("stopping …")
            _stop(children)
    except DevServerError as error:
        raise CommandError(str(error)) from None
    finally:
        progress.end()
        servers.stop()


async def prepare(endpoints: Endpoints, topics: Topics, partitions: int) -> None:
    """Make the topics and bring the schema up to date."""
    from waypost_worker.kafka.connection import Connection
    from waypost_worker.kafka.topics import create_topics
    from waypost_worker.postgres.migrate import migrate_dsn

    await create_topics(Connection(endpoints.bootstrap_servers), topics, partitions)
    await migrate_dsn(endpoints.postgres_dsn)


def _start_worker(endpoints: Endpoints, prefix: str) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "WAYPOST_BOOTSTRAP_SERVERS": endpoints.bootstrap_servers,
        "WAYPOST_POSTGRES_DSN": endpoints.postgres_dsn,
        "WAYPOST_TOPIC_PREFIX": prefix,
    }
    # The parent's death must end the worker: its standard input closes then, and worker_child waits for that.
    return subprocess.Popen(
        [sys.executable, "-m", "waypost_worker.cli.worker_child"],
        env=environment,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _until(stop: threading.Event, children: "list[subprocess.Popen[bytes]]") -> int:
    while not stop.wait(0.2):
        for child in children:
            if child.poll() is not None:
                note(f"a worker ended with exit code {child.returncode}; stopping")
                return FAILED
    return DONE


def _stop(children: "list[subprocess.Popen[bytes]]") -> None:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _banner(endpoints: Endpoints, state_dir: Path, prefix: str, workers: int) -> None:
    from waypost_worker.settings import masked_dsn

    note(
        f"""
  Waypost is running with {workers} worker{"" if workers == 1 else "s"}. Ctrl-C stops everything.

    Kafka     {endpoints.bootstrap_servers}   topics {prefix}.commands, {prefix}.results
    Postgres  {masked_dsn(endpoints.postgres_dsn)}
    both in   {state_dir / "endpoints.json"}

  In another terminal:

    export WAYPOST_BOOTSTRAP_SERVERS={endpoints.bootstrap_servers}
    waypost tail --from-beginning
    waypost publish session-1 task_started --data '{{"step": 1}}' --wait
"""
    )


class _Progress:
    """A line that grows while Kafka comes down, on a terminal; plain lines elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._last = -1

    def show(self, done: int, total: int, name: str) -> None:
        """Called by the servers while they prepare."""
        if sys.stderr.isatty():
            if self._bar is None:
                from rich.console import Console
                from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

                self._bar = Progress(
                    TextColumn("{task.description:<30}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    console=Console(stderr=True),
                )
                self._bar.start()
                self._task = self._bar.add_task("", total=total)
            self._bar.update(self._task, completed=done, total=total, description=name[:30])
        elif done * 10 // max(total, 1) != self._last:
            self._last = done * 10 // max(total, 1)
            note(f"  {name} ({done} of {total})")

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
