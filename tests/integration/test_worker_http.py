"""A real worker's probes, metrics, log level and traces, over HTTP."""

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.integration.test_worker_process import Worker, publish
from tests.integration.watched import Watched, ok
from tests.support.commands import create_body
from tests.support.deployment import CREATE, TIME, Deployment, deployment
from tests.support.processes import freeze
from tests.support.servers import POSTGRES_SETTINGS
from tests.support.timeouts import PATIENCE

from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.telemetry.catalog import METRICS

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
AGENT = "00f067aa0ba902b7"


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=2) as made:
        yield made


async def test_probes_and_metrics_of_a_running_worker(here: Deployment, tmp_path: Path) -> None:
    # Long enough a session that the group leaves this worker alone on a machine that stands still for seconds.
    worker = Watched(here, tmp_path / "log", WAYPOST_SESSION_TIMEOUT="30")
    await worker.start()
    await worker.answers("/startupz", ok)
    assert json.loads(await worker.answers("/readyz", ok)) == {
        "status": "ok",
        "postgres": "ok",
        "partitions": "ok",
    }
    assert (await worker.get("/livez"))[0] == 200
    await publish(here, 30)
    await here.create("session-1", command_id="twice")
    await here.create("session-1", command_id="twice")
    await here.send(b"not JSON", b"session-1")
    await here.answered(33)
    # A result can be read before the worker hears that Kafka has it; lag and pool are looked at every few seconds.
    await worker.shows(
        lambda found: (
            found.get(("waypost_end_to_end_seconds_count",)) == 33
            and found.get(("waypost_postgres_shard_up", "0")) == 1
            and found.get(("waypost_lag_commands", "0")) == found.get(("waypost_lag_commands", "1")) == 0
        )
    )
    found = await worker.metrics()
    assert found["waypost_commands_total", "accepted", "checkpoint.create"] == 31
    assert found["waypost_commands_total", "duplicate", "checkpoint.create"] == 1
    assert found["waypost_commands_total", "rejected", "checkpoint.create"] == 1
    assert found["waypost_rejected_commands_total", "invalid-body"] == 1
    assert found["waypost_batch_commands_sum",] == 33
    assert found["waypost_end_to_end_seconds_count",] == 33
    assert found["waypost_postgres_seconds_count", "commit", "0"] == found["waypost_batch_commands_count",]
    assert found["waypost_postgres_seconds_count", "load", "0"] >= 1
    assert found["waypost_acquisitions_total",] == found["waypost_owned_partitions",] == 2
    assert found["waypost_postgres_pool_limit", "0"] == 8
    assert found["waypost_loop_delay_seconds",] < 10
    names = {name[0] for name in found}
    assert {series for metric in METRICS for series in metric.series} - names == {
        "waypost_refused_offset"  # no partition is refused
    }
    assert await worker.end(signal.SIGTERM) == 0


async def test_a_worker_whose_database_is_unreachable_is_alive_but_not_ready(
    here: Deployment, tmp_path: Path
) -> None:
    postgres = EmbeddedPostgres(tmp_path / "postgres", settings=POSTGRES_SETTINGS)
    postgres.start()
    try:
        worker = Watched(here, tmp_path / "log", WAYPOST_MIGRATE="true", WAYPOST_POSTGRES_DSN=postgres.dsn)
        # Longer than a probe waits for the database, and shorter than the usual 5 s.
        worker.environment["WAYPOST_REQUEST_TIMEOUT"] = "3"
        await worker.start()
        await worker.answers("/readyz", ok)
        freeze(postgres)
        await worker.answers(
            "/readyz",
            lambda status, body: status == 503 and json.loads(body)["postgres"] == "no answer within 2 s",
        )
        assert (await worker.get("/livez"))[0] == 200
        await worker.shows(lambda found: found.get(("waypost_postgres_shard_up", "0")) == 0)
        postgres.resume()
        await worker.answers("/readyz", ok)
        await worker.shows(lambda found: found.get(("waypost_postgres_shard_up", "0")) == 1)
        assert await worker.end(signal.SIGTERM) == 0
    finally:
        postgres.resume()
        postgres.stop()


async def test_a_worker_that_waits_for_kafka_has_not_started(here: Deployment, tmp_path: Path) -> None:
    worker = Watched(here, tmp_path / "log", WAYPOST_BOOTSTRAP_SERVERS="127.0.0.1:1")
    await worker.start()
    await here.until(lambda: worker.says("kafka_unavailable") > 0)
    assert (await worker.get("/startupz"))[0] == 503
    assert (await worker.get("/livez"))[0] == 200
    assert (await worker.get("/nothing"))[0] == 404
    assert await worker.end(signal.SIGTERM) == 0


async def test_a_taken_port_is_reported_in_one_line(here: Deployment, tmp_path: Path) -> None:
    first = Watched(here, tmp_path / "one")
    await first.start()
    await here.until(lambda: first.says("http_listening") > 0)
    port = json.loads(first.log.read_text().splitlines()[0])["port"]
    second = Worker(here, tmp_path / "two", WAYPOST_HTTP_PORT=str(port))
    await second.start()
    assert second.process is not None
    assert await asyncio.wait_for(second.process.wait(), PATIENCE) == 1
    (line,) = second.log.read_text().splitlines()
    assert f"can't listen on 127.0.0.1:{port}" in line
    assert await first.end(signal.SIGTERM) == 0


async def test_signals_change_the_log_level(here: Deployment, tmp_path: Path) -> None:
    worker = Watched(here, tmp_path / "log")
    await worker.start()
    await worker.answers("/readyz", ok)
    assert worker.process is not None
    await publish(here, 1)
    await here.answered(1)
    assert worker.says("batch") == 0
    worker.process.send_signal(signal.SIGUSR1)
    await here.until(lambda: worker.says("log_level_changed") == 1)
    await publish(here, 1)
    await here.until(lambda: worker.says("batch") == 1)
    worker.process.send_signal(signal.SIGUSR2)
    await here.until(lambda: worker.says("log_level_changed") == 2)
    await publish(here, 1)
    await here.answered(3)
    assert worker.says("batch") == 1
    assert await worker.end(signal.SIGTERM) == 0


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP/HTTP collector: its address, and what it got."""
    got: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            got.append(
                ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_worker_sends_spans_of_sampled_commands_to_the_collector(
    here: Deployment, tmp_path: Path
) -> None:
    with collector() as (address, got):
        worker = await Worker(here, tmp_path / "log", WAYPOST_OTLP_ENDPOINT=address).start()
        for flags in (b"00", b"01"):
            parent = f"00-{TRACE}-{AGENT}-".encode() + flags
            headers = command_headers(f"c-{flags.decode()}", b"/t", CREATE, TIME, parent)
            await here.send(create_body("n", {}), b"session-1", headers=headers)
        await here.answered(2)
        assert await worker.end(signal.SIGTERM) == 0  # which sends what was still held back
    spans = {
        span.name: span
        for request in got
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    assert set(spans) == {"waypost apply", "waypost commit", "waypost emit"}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    applied = spans["waypost apply"]
    assert applied.parent_span_id.hex() == AGENT
    assert spans["waypost commit"].parent_span_id == spans["waypost emit"].parent_span_id == applied.span_id
    attributes = {one.key: one.value for one in applied.attributes}
    assert attributes["cloudevents.event_id"].string_value == "c-01"
    assert attributes["waypost.result_type"].string_value == EventType.CREATED
