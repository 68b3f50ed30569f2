"""One worker as a process: its event loop, signals and traces. Independent of HTTP: the caller passes ``serve``."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any

import structlog

from waypost_worker.config.settings import Settings
from waypost_worker.partition.observer import Observer
from waypost_worker.runtime.worker import Worker
from waypost_worker.telemetry.health import Health
from waypost_worker.telemetry.logs import LogLevel
from waypost_worker.telemetry.metrics import Metrics
from waypost_worker.telemetry.tracing import TracingObserver, configured_provider, start_exporting

log = structlog.get_logger("waypost.worker")
Serve = Callable[[Settings, Health, Metrics], AbstractAsyncContextManager[object]]


def run_worker(settings: Settings, level: LogLevel | None = None, serve: Serve | None = None) -> int:
    """Run one worker in this process until SIGTERM or SIGINT. Return its exit code. A second signal ends it
    immediately.

    SIGUSR1 makes the log say everything, SIGUSR2 what the settings say again. ``serve`` is entered while the
    worker runs; without it nothing is counted.
    """

    async def main(tracing: Observer | None) -> int:
        metrics = Metrics() if serve is not None else None
        worker = Worker(settings, metrics, tracing)
        _handle_signals(worker)
        if level is not None:
            _change_level_on_signals(level)
        beside: AbstractAsyncContextManager[Any] = nullcontext()
        if serve is not None and metrics is not None:
            beside = serve(settings, worker.health, metrics)
        async with beside:
            return await worker.run()

    # Reference counts free the objects of a batch. Searching about 200,000 objects of batches in progress for cycles is
    # not worthwhile, nor is searching those that live as long as the process. Sessions in the cache live long, too.
    gc.freeze()
    gc.set_threshold(500_000, 10, 20)
    with _tracing(settings) as tracing:
        try:
            import uvloop
        except ImportError:
            return asyncio.run(main(tracing))
        return uvloop.run(main(tracing))


@contextmanager
def _tracing(settings: Settings) -> Iterator[Observer | None]:
    """Return what creates spans, if something collects them."""
    commands = settings.topics.commands
    if settings.otlp_endpoint is None:
        provider = configured_provider()
        yield None if provider is None else TracingObserver(provider, commands)
        return
    exporting = start_exporting(settings.otlp_endpoint)
    try:
        yield TracingObserver(exporting, commands)
    finally:
        exporting.shutdown()


def _handle_signals(worker: Worker) -> None:
    stopping = False

    def on_signal(number: int) -> None:
        nonlocal stopping
        if stopping:
            log.warning("worker_killed", signal=signal.Signals(number).name)
            sys.stderr.flush()
            os._exit(1)
        stopping = True
        log.info("worker_draining", signal=signal.Signals(number).name)
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


def _change_level_on_signals(level: LogLevel) -> None:
    def change(name: str) -> None:
        level.set(name)
        log.warning("log_level_changed", level=name)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, change, "debug")
    loop.add_signal_handler(signal.SIGUSR2, change, level.configured)
