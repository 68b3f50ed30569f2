"""One worker in this process, with all that its settings ask for: logs, probes and metrics, traces."""

from contextlib import AbstractAsyncContextManager

from waypost_worker.config.settings import Settings, secret_values
from waypost_worker.runtime.process import run_worker
from waypost_worker.telemetry.health import Health
from waypost_worker.telemetry.logs import configure_logs
from waypost_worker.telemetry.metrics import Metrics


def run(settings: Settings) -> int:
    """Run it until a signal; its exit code."""
    level = configure_logs(settings.log_level, settings.log_format, secret_values(settings))
    return run_worker(settings, level, None if settings.http_port is None else _serve)


def _serve(settings: Settings, health: Health, metrics: Metrics) -> AbstractAsyncContextManager[int]:
    from waypost_worker.web.probes import probes
    from waypost_worker.web.server import serving

    return serving(probes(health, metrics), settings.http_host, settings.http_port or 0)
