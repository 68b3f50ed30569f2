"""``waypost dev``: a real Kafka, a real Postgres and workers, on a laptop."""

import asyncio
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter, validators

from waypost.endpoints import state_directory
from waypost.errors import WaypostError
from waypost.wire.topics import Topics
from waypost_worker.cli.console import log_failures, open_browser, tell_link
from waypost_worker.cli.support.options import OutputFlag
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, Format, note, show_fields
from waypost_worker.cli.worker.processes import WorkerProcesses
from waypost_worker.config.settings import Settings, config_origin, load_settings

if TYPE_CHECKING:
    from waypost_worker.console.background import BackgroundConsole
    from waypost_worker.devserver import Endpoints

# The ports that samples and other programs expect.
_KAFKA_PORT: Final = 9092
_POSTGRES_PORT: Final = 5432
_PORT = validators.Number(gte=0, lte=65_535)
_LOOK_SECONDS: Final = 0.2
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def dev(
    *,
    state_dir: Annotated[
        Path | None, Parameter(help="directory for all data (default: WAYPOST_STATE_DIR or .waypost)")
    ] = None,
    ephemeral: Annotated[bool, Parameter(help="delete all data at the end")] = False,
    workers: Annotated[
        int,
        Parameter(help="number of worker processes, 0 for none", validator=validators.Number(gte=0, lte=64)),
    ] = 1,
    partitions: Annotated[
        int | None,
        Parameter(help="partitions of new topics (default: 3)", validator=validators.Number(gte=1, lte=1000)),
    ] = None,
    topic_prefix: Annotated[str | None, Parameter(help="prefix of both topics (default: waypost)")] = None,
    kafka_port: Annotated[
        int | None,
        Parameter(help="port of Kafka, 0 for any (default: 9092, or any if it is taken)", validator=_PORT),
    ] = None,
    postgres_port: Annotated[
        int | None,
        Parameter(help="port of Postgres, 0 for any (default: 5432, or any if it is taken)", validator=_PORT),
    ] = None,
    console_port: Annotated[
        int | None,
        Parameter(
            help="port of the console, 0 for any (default: the first free one from 8650)",
            validator=_PORT,
        ),
    ] = None,
    no_console: Annotated[bool, Parameter(help="do not start the console")] = False,
    open_: Annotated[bool, Parameter(name="--open", help="open the console in your browser")] = False,
    log_level: Annotated[str | None, Parameter(help="log level of the workers (default: warning)")] = None,
    output: OutputFlag = "table",
) -> int:
    """Kafka, Postgres and workers on this machine, until Ctrl-C.

    It needs neither Docker nor Java. The first start downloads Kafka (44 MB, about 30 seconds); after that, it takes a
    few seconds. Missing topics and a missing schema are created. The printed link opens the console, which shows
    sessions in a browser. Other waypost commands that run in the same directory find the servers by themselves. Other
    programs can read endpoints.json in the state directory, which exists as long as everything is ready. With -o json,
    the same data and more is printed once everything is ready.

    For example:

      waypost dev --open
      waypost dev --ephemeral --workers 2 --log-level info
    """
    if ephemeral and state_dir is not None:
        raise CommandError("--ephemeral keeps nothing, so it can't be combined with --state-dir", USAGE)
    settings = load_settings(topic_prefix=topic_prefix, log_level=log_level, console_port=console_port)
    if log_level is None and config_origin("log_level") == "default":
        settings = settings.model_copy(update={"log_level": "warning"})
    made = _Dev(settings, _directory(state_dir, ephemeral), kafka_port, postgres_port)
    return made.run(workers, partitions, output, console=not no_console, open_=open_)


def _directory(given: Path | None, ephemeral: bool) -> Path | None:
    return None if ephemeral else given or state_directory()


class _Dev:
    """A run of the dev server."""

    def __init__(
        self,
        settings: Settings,
        directory: Path | None,
        kafka_port: int | None,
        postgres_port: int | None,
    ) -> None:
        from waypost_worker.devserver import ClusterOptions, Servers

        self._settings = settings
        self._progress = DownloadProgress()
        self._servers = Servers(
            directory,
            kafka=ClusterOptions(
                port=_KAFKA_PORT if kafka_port is None else kafka_port,
                other_ports=kafka_port is None,
                progress=self._progress.show,
            ),
            postgres_port=_POSTGRES_PORT if postgres_port is None else postgres_port,
            other_ports=postgres_port is None,
        )
        self._workers = WorkerProcesses()
        self._console: BackgroundConsole | None = None
        self._stop = threading.Event()
        self._began = False
        self._ready = False

    def run(self, workers: int, partitions: int | None, output: Format, *, console: bool, open_: bool) -> int:
        """Run until a signal. Return the exit code."""
        from waypost_worker.devserver import DevServerError

        for number in _SIGNALS:
            # Under nohup a hang-up is ignored, and stays so.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        began = time.monotonic()
        try:
            note("starting Kafka and Postgres …")
            endpoints = self._start(partitions)
            self._workers.start([self._environment(endpoints)] * workers)
            endpoints.write(self._servers.state_dir)
            link = self._start_console(endpoints) if console else None
            self._ready = True
            if output == "table":
                _banner(endpoints, self._servers.state_dir, self._settings, self._workers.pids, link, began)
            else:
                show_fields(self._for_programs(endpoints, self._workers.pids, link), output)
            if open_ and link is not None:
                open_browser(link)
            while not self._stop.wait(_LOOK_SECONDS):
                self._require_servers()
                self._workers.look_after()
            return DONE
        except KeyboardInterrupt:
            return DONE
        except DevServerError as error:
            raise CommandError(str(error)) from None
        finally:
            self._end()

    def _start(self, partitions: int | None) -> "Endpoints":
        from waypost import endpoints as file

        found = self._servers.start()
        self._began = True
        self._progress.end()
        # A program that waits for endpoints.json must find topics and schema, too, so the file is written again once
        # they exist.
        file.remove(self._servers.state_dir)
        asyncio.run(prepare(found, self._settings.topics, partitions))
        return found

    def _start_console(self, endpoints: "Endpoints") -> str | None:
        """Return the link that opens the console, or None, after a note, if it can't run. The servers are useful
        without it."""
        from waypost_worker.console.background import BackgroundConsole

        log_failures()
        self._console = BackgroundConsole()
        settings = load_settings(
            bootstrap_servers=endpoints.bootstrap_servers,
            postgres_dsn=endpoints.postgres_dsn,
            topic_prefix=self._settings.topic_prefix,
            console_port=self._settings.console_port,
        )
        try:
            return self._console.start(settings, tell_link)
        except WaypostError as error:
            note(f"The console was not started: {error}")
            return None

    def _require_servers(self) -> None:
        for name, server in (("Kafka", self._servers.kafka), ("Postgres", self._servers.postgres)):
            if not server.running:
                raise CommandError(f"{name} ended by itself; {server.log_path} says why")

    def _environment(self, endpoints: "Endpoints") -> dict[str, str]:
        return {
            "WAYPOST_BOOTSTRAP_SERVERS": endpoints.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": endpoints.postgres_dsn,
            "WAYPOST_TOPIC_PREFIX": self._settings.topic_prefix,
            "WAYPOST_LOG_LEVEL": self._settings.log_level,
        }

    def _for_programs(self, endpoints: "Endpoints", pids: list[int], link: str | None) -> dict[str, Any]:
        return {
            "bootstrap_servers": endpoints.bootstrap_servers,
            "postgres_dsn": endpoints.postgres_dsn,
            "topic_prefix": self._settings.topic_prefix,
            "state_dir": str(self._servers.state_dir),
            "worker_pids": pids,
            "console": link,
        }

    def _on_signal(self, *_: object) -> None:
        if self._stop.is_set():
            # The second signal: don't wait for work in progress.
            self._workers.kill()
            return
        self._stop.set()
        if not self._ready:
            note("stopping …")
            raise KeyboardInterrupt

    def _end(self) -> None:
        self._stop.set()
        self._progress.end()
        if self._began:
            note("stopping …")
        if self._console is not None:
            self._console.stop()
        self._workers.stop()
        self._servers.stop()
        if self._began:
            note("everything is stopped")


async def prepare(endpoints: "Endpoints", topics: Topics, partitions: int | None) -> None:
    """Create the topics and migrate the schema. Raise CommandError if the topics have a different partition count."""
    from waypost_worker.cli.topics.app import make_topics
    from waypost_worker.postgres.migrate import migrate_dsn

    settings = load_settings(
        bootstrap_servers=endpoints.bootstrap_servers,
        postgres_dsn=endpoints.postgres_dsn,
        topic_prefix=topics.prefix,
    )
    await make_topics(settings, partitions, default=3, zombie_test=False)
    await migrate_dsn(endpoints.postgres_dsn)


def _banner(
    endpoints: "Endpoints",
    directory: Path,
    settings: Settings,
    pids: list[int],
    link: str | None,
    began: float,
) -> None:
    workers = f"{len(pids)} worker{'' if len(pids) == 1 else 's'}"
    if pids:
        workers += f" (pid {', '.join(map(str, pids))})"
    exports = ""
    if directory != state_directory().absolute():
        exports = f"\n    export WAYPOST_STATE_DIR={shlex.quote(str(directory))}"
    if settings.topic_prefix != "waypost":
        exports += f"\n    export WAYPOST_TOPIC_PREFIX={settings.topic_prefix}"
    console = "" if link is None else f"    Console   {link}\n"
    where = "in another terminal" if exports else "in another terminal, in this directory"
    # The password in the DSN is generated for these servers, which listen on this machine alone.
    note(
        f"""
  Waypost runs with {workers}, ready in {time.monotonic() - began:.1f} s.

{console}    Kafka     {endpoints.bootstrap_servers}  {settings.topics.commands}, {settings.topics.results}
    Postgres  {endpoints.postgres_dsn}
    State     {directory}

  Next, {where}:
{exports}
    waypost tail
    waypost publish session-1 task_started --data '{{"step": 1}}' --wait
    waypost session show session-1

  Or from Python:

    import waypost
    with waypost.SyncPublisher() as publisher:
        publisher.create("session-1", "task_started", {{"step": 1}})

  Ctrl-C stops everything."""
    )


class DownloadProgress:
    """Called by the embedded servers while they download and prepare Kafka."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._tenth = -1

    def show(self, done: int, total: int, name: str) -> None:
        """``done`` of ``total`` steps; ``name`` is the file or the step."""
        if sys.stderr.isatty():
            self._draw(done, total, name)
        elif done * 10 // max(total, 1) != self._tenth:
            self._tenth = done * 10 // max(total, 1)
            note(f"  preparing Kafka, {done} of {total}: {name}")

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, done: int, total: int, name: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("  {task.description:<34}"), BarColumn(20), MofNCompleteColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done, total=total, description=name[:34])
