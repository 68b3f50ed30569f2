"""Run the console: from settings to a server that answers, and the link that lets a browser in."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.types import ASGIApp

from waypost import __version__
from waypost.model.tenants import TenantScope
from waypost.reader.client import Reader
from waypost_worker.config.kafka import kafka_connection, kafka_security
from waypost_worker.config.keys import make_codec
from waypost_worker.config.settings import Settings
from waypost_worker.console.access import allowed_hosts, is_loopback
from waypost_worker.console.app import make_app
from waypost_worker.console.cluster import cluster
from waypost_worker.console.gates import check_settings, gate_of
from waypost_worker.console.live import live_results
from waypost_worker.console.publishing import publishing
from waypost_worker.console.reads import Reads
from waypost_worker.console.rejected_commands import RejectedCommands
from waypost_worker.console.services import About, Services
from waypost_worker.console.verifier import Verifier
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.postgres.verify_rows import Snapshots
from waypost_worker.web.bounded import bounded_protocol
from waypost_worker.web.server import ListenError, serving

FIRST_PORT: Final = 8650
STATEMENT_SECONDS: Final = 60.0
_PORTS_TRIED: Final = 50
_MOST_CONNECTIONS: Final = 256
#: A live stream ends before this, and the browser takes it up again.
_REQUEST_SECONDS: Final = 120.0
_RECONNECT_SECONDS: Final = 2.0


@asynccontextmanager
async def console(settings: Settings, tell: Callable[[str], None]) -> AsyncIterator[str]:
    """Serve the console; yield the address to open. ``tell`` is called with each later link that lets a browser in.

    SettingsError if the settings would let in anybody, ListenError if the port can't be had.
    """
    check_settings(settings)
    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(gate_of(settings))
        made = await stack.enter_async_context(_services(settings))
        port = await _listening(stack, make_app(made, gate), settings)
        names = [name.strip() for name in settings.console_hosts.split(",") if name.strip()]
        gate.hosts = allowed_hosts(settings.console_host, port, names)
        # Cookies know no ports: two consoles on one machine must not log each other's users out.
        gate.cookie = f"waypost_console_{port}"
        own = f"{_shown(settings.console_host)}:{port}"
        address = f"http://{own if is_loopback(settings.console_host) else names[0]}/"
        if gate.links is None:
            yield address
            return
        links = gate.links
        links.on_new = lambda: tell(f"{address}login?token={links.token}")
        yield f"{address}login?token={links.token}"


@asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[Services]:
    security = kafka_security(settings)
    codec = make_codec(settings)
    reader = Reader(
        settings.postgres_dsn.get_secret_value(),
        schema=settings.postgres_schema,
        timeout=settings.request_timeout,
        reconnect=_RECONNECT_SECONDS,
        statement_cache_size=settings.postgres_statement_cache,
        bootstrap_servers=settings.bootstrap_servers,
        topic_prefix=settings.topic_prefix,
        kafka_options=security,
        tenant=settings.console_tenant,
        codec=codec,
    )
    scope = TenantScope(settings.console_tenant)
    about = About(
        settings.bootstrap_servers, settings.topic_prefix, __version__, settings.console_trace_url, scope
    )
    access = (settings.bootstrap_servers, settings.topic_prefix, security)
    connection = kafka_connection(settings, "waypost-console")
    client = ClusterClient(connection)
    reads = Reads(reader, scope)
    topics = settings.topics
    async with reader, publishing(*access, codec) as opened, live_results(*access) as live:
        asked = cluster(settings, connection, client, reads, live)
        snapshots = Snapshots(
            settings.dsns,
            settings.postgres_schema,
            timeout=settings.request_timeout,
            statement_seconds=STATEMENT_SECONDS,
        )
        async with asked as found:
            yield Services(
                about,
                reads,
                opened,
                live,
                client,
                found,
                Verifier(client, topics, snapshots),
                RejectedCommands(settings, connection, reads),
            )


async def _listening(stack: AsyncExitStack, app: ASGIApp, settings: Settings) -> int:
    protocol = bounded_protocol(_MOST_CONNECTIONS, _REQUEST_SECONDS)
    ports = [settings.console_port]
    if settings.console_port is None:
        ports = list(range(FIRST_PORT, FIRST_PORT + _PORTS_TRIED))
    for port in ports:
        try:
            return await stack.enter_async_context(
                serving(app, settings.console_host, port or 0, lambda *_: None, protocol)
            )
        except ListenError as error:
            last = error
    raise ListenError(str(last).replace("WAYPOST_HTTP_", "WAYPOST_CONSOLE_"))


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
