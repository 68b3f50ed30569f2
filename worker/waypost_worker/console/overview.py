"""Handler of the page that shows how the deployment is."""

from starlette.requests import Request
from starlette.responses import Response

from waypost_worker.console.render import render
from waypost_worker.console.services import require_every_tenant, services
from waypost_worker.findings import verdict


async def help_page(request: Request) -> Response:
    """Show keys and what the search understands."""
    return render(request, "help.html", title="Help")


async def health(request: Request) -> Response:
    """Show lag, workers, refusals, each partition, and what doctor's checks find."""
    require_every_tenant(request)
    cluster = services(request).cluster
    found = await cluster.health()
    findings = await cluster.findings(found)
    return render(
        request, "health.html", title="Health", health=found, findings=findings, verdict=verdict(findings)
    )
