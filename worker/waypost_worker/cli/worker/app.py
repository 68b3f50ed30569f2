"""``waypost worker``: run a worker in this process, or several in separate processes."""

import os
import signal
import threading
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter, validators
from pydantic import SecretStr

from waypost_worker.cli.support.options import NO_TARGET, Target
from waypost_worker.cli.support.output import DONE, FAILED, note
from waypost_worker.config.settings import Settings, SettingsError, load_settings
from waypost_worker.runtime.signals import end_at_once_on_signals

_LOOK_SECONDS: Final = 0.2
# Besides the drain: leaving the group, closing connections, and the start of Python.
_STOP_SECONDS: Final = 10.0
_MOST_PROCESSES: Final = 256


def _check_processes(_: object, value: int | str) -> None:
    if isinstance(value, int) and not 1 <= value <= _MOST_PROCESSES:
        raise ValueError(f"Must be 1 to {_MOST_PROCESSES}, or auto.")


def worker(
    *,
    processes: Annotated[
        int | Literal["auto"],
        Parameter(
            help="number of worker processes; auto: one per core",
            validator=_check_processes,
        ),
    ] = 1,
    migrate: Annotated[bool | None, Parameter(help="apply pending migrations first")] = None,
    http_port: Annotated[
        int | None,
        Parameter(help="port for probes and metrics", validator=validators.Number(gte=0, lte=65_535)),
    ] = None,
    log_level: Annotated[str | None, Parameter(help="log level: debug, info, warning or error")] = None,
    target: Target = NO_TARGET,
) -> int:
    """Run one worker until SIGTERM or Ctrl-C.

    It finishes the work in progress before it ends; a second signal ends it immediately. Any number of workers share
    the partitions. The exit code is 0 after a clean end. SIGUSR1 sets the log to level debug, and SIGUSR2 sets it back.
    For the other settings, see 'waypost config show'.

    One process keeps one core busy. With --processes, each process has the next HTTP port after the previous one's, and
    its own number at the end of the static member's name. A process that is killed is replaced; if one gives up, all
    end. 'auto' counts the cores that this process may use.

    For example:

      waypost worker --migrate --bootstrap-servers kafka:9092

      waypost worker --processes 4 --http-port 9464

      waypost worker --processes auto
    """
    end_at_once_on_signals()
    settings = target.settings(migrate=migrate, http_port=http_port, log_level=log_level)
    count = usable_cpus() if processes == "auto" else processes
    if count == 1:
        from waypost_worker.cli.worker.run import run

        return run(settings)
    return _Parent(settings).run(count)


class _Parent:
    """Several workers, until a signal."""

    def __init__(self, settings: Settings) -> None:
        from waypost_worker.cli.worker.processes import WorkerProcesses

        self._settings = settings
        self._workers = WorkerProcesses(settings.drain_timeout + _STOP_SECONDS)
        self._stop = threading.Event()

    def run(self, count: int) -> int:
        """The exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._pass_on)
        clean = False
        try:
            self._workers.start(environments(self._settings, count))
            note(f"{count} workers: pid {', '.join(map(str, self._workers.pids))}")
            while not self._stop.wait(_LOOK_SECONDS):
                self._workers.look_after()
        finally:
            clean = self._workers.stop()
        return DONE if clean else FAILED

    def _on_stop(self, *_: object) -> None:
        if self._stop.is_set():
            self._workers.kill()
        self._stop.set()

    def _pass_on(self, number: int, _: object) -> None:
        self._workers.signal(number)


def environments(settings: Settings, count: int) -> list[dict[str, str]]:
    """The settings of each of ``count`` workers, as variables; SettingsError if the ports do not suffice."""
    common = {}
    found = load_settings()
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        # A secret that they find where this process found it stays there: a file's does not go into variables.
        if value is not None and not (isinstance(value, SecretStr) and value == getattr(found, name)):
            shown = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            common[f"WAYPOST_{name}".upper()] = shown
    port, member = settings.http_port, settings.group_instance_id
    if port and port + count - 1 > 65_535:
        raise SettingsError(
            f"--processes {count} with port {port} for the first would need ports above 65535"
        )
    made = []
    for index in range(count):
        own = dict(common)
        if port:
            own["WAYPOST_HTTP_PORT"] = str(port + index)
        if member is not None:
            own["WAYPOST_GROUP_INSTANCE_ID"] = f"{member}-{index}"
        made.append(own)
    return made


_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus(quota: Path = _QUOTA) -> int:
    """At least 1. A quota of one and a half cores counts as one: two processes would be held up by turns.

    ``quota`` is a control group's ``cpu.max`` (cgroup v2): microseconds and the period, or ``max``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, int(allowed) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return cores
