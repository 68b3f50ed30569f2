"""``/livez``, ``/readyz``, ``/startupz`` and ``/metrics``, for orchestrators and Prometheus.

Probes answer 200 or 503, with what was checked as JSON.
"""

from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from waypost_worker.telemetry.health import Health, HealthReport
from waypost_worker.telemetry.metrics import Metrics

_OPENMETRICS: Final = "application/openmetrics-text"


def probes(health: Health, metrics: Metrics) -> Starlette:
    """The ASGI application."""

    async def livez(_: Request) -> Response:
        return _answer(health.live())

    async def readyz(_: Request) -> Response:
        return _answer(await health.ready())

    async def startupz(_: Request) -> Response:
        return _answer(health.started())

    paths = {"/livez": livez, "/readyz": readyz, "/startupz": startupz}
    routes = [Route(path, endpoint) for path, endpoint in paths.items()]
    return Starlette(routes=[*routes, _metrics(metrics.registry)])


def metrics_only(registry: CollectorRegistry) -> Starlette:
    """Return the ASGI application of a process that is not a worker."""
    return Starlette(routes=[_metrics(registry)])


def _metrics(registry: CollectorRegistry) -> Route:
    async def exposed(request: Request) -> Response:
        encode, content_type = choose_encoder(_format(request.headers.get("accept", "")))
        return Response(encode(registry), media_type=content_type)

    return Route("/metrics", exposed)


def _format(accept: str) -> str:
    """Return OpenMetrics if the client asks for it, and text otherwise. The client library raises an error for versions
    that it can't parse.
    """
    named = {each.partition(";")[0].strip().lower() for each in accept.split(",")}
    return f"{_OPENMETRICS}; version=1.0.0" if _OPENMETRICS in named else ""


def _answer(verdict: HealthReport) -> Response:
    body = {"status": "ok" if verdict.ok else "failed", **verdict.checks, **verdict.notes}
    return JSONResponse(body, 200 if verdict.ok else 503, {"cache-control": "no-store"})
