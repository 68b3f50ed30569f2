"""``--metrics-port`` of the commands that recover: their progress for Prometheus, while they work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter, validators

from waypost_worker.cli.support.output import USAGE, CommandError, note
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.telemetry.recovery_metrics import RecoveryCounts

MetricsPort: TypeAlias = Annotated[
    int | None,
    Parameter(
        help="port for progress at /metrics, 0 for any free one",
        validator=validators.Number(gte=0, lte=65_535),
    ),
]


@asynccontextmanager
async def progress_served(
    progress: "RecoveryCounts", settings: Settings, port: int | None
) -> AsyncIterator[None]:
    """Serve what ``progress`` says on ``port`` of WAYPOST_HTTP_HOST; nothing where no port is given."""
    if port is None:
        yield
        return
    # Only here: an HTTP server takes as long to import as a short command to run.
    from waypost_worker.telemetry.recovery_metrics import recovery_registry
    from waypost_worker.web.probes import metrics_only
    from waypost_worker.web.server import ListenError, serving

    app = metrics_only(recovery_registry(progress))
    try:
        async with serving(app, settings.http_host, port, _tell):
            yield
    except ListenError as error:
        raise CommandError(f"{error}; nothing was changed; see --metrics-port", USAGE) from None


def _tell(host: str, port: int) -> None:
    note(f"metrics at http://{f'[{host}]' if ':' in host else host}:{port}/metrics")
