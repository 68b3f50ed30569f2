"""One trace from the agent's span over publisher, worker and result to the subscriber's handler."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE
from tests.unit.test_metrics import CREATE, batch, command

from waypost import Event, Publisher, Subscriber
from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers
from waypost_worker.telemetry.tracing import MOST_PER_BATCH, TracingObserver, configured_provider


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix) as made:
        yield made


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exported: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return provider


def named(exported: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = (span for span in exported.get_finished_spans() if span.name == name)
    return found


async def test_a_trace_goes_from_the_agent_to_the_subscriber(
    here: Deployment, provider: TracerProvider, exported: InMemorySpanExporter
) -> None:
    tracer = provider.get_tracer("agent")
    handled = asyncio.Event()

    async def handler(event: Event) -> None:
        with tracer.start_as_current_span("subscriber's work"):
            handled.set()

    async with (
        Subscriber(
            here.endpoints.bootstrap_servers, topic_prefix=here.topics.prefix, from_beginning=True
        ) as subscriber,
        Publisher(here.endpoints.bootstrap_servers, topic_prefix=here.topics.prefix) as publisher,
    ):
        running = here.own(observer=TracingObserver(provider, here.topics.commands))
        reading = asyncio.create_task(subscriber.run(handler))
        with tracer.start_as_current_span("agent's step"):
            command_id = publisher.create("session-1", "n", {"x": 1})
        await asyncio.wait_for(handled.wait(), PATIENCE)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await running.stop()

    agent = named(exported, "agent's step")
    applied = named(exported, "waypost apply")
    assert applied.attributes is not None
    assert applied.attributes["cloudevents.event_id"] == command_id
    for name, parent in (
        ("waypost apply", agent),
        ("waypost commit", applied),
        ("waypost emit", applied),
        ("subscriber's work", agent),
    ):
        span = named(exported, name)
        assert span.context.trace_id == agent.context.trace_id, name
        assert span.parent is not None, name
        assert span.parent.span_id == parent.context.span_id, name
    commit, emit = named(exported, "waypost commit"), named(exported, "waypost emit")
    assert applied.start_time <= commit.start_time <= commit.end_time <= emit.end_time  # type: ignore[operator]


async def test_what_agents_do_not_sample_makes_no_spans(
    here: Deployment, provider: TracerProvider, exported: InMemorySpanExporter
) -> None:
    unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("agent")
    running = here.own(observer=TracingObserver(provider, here.topics.commands))
    async with Publisher(here.endpoints.bootstrap_servers, topic_prefix=here.topics.prefix) as publisher:
        publisher.create("session-1", "no trace", {})
        with unsampled.start_as_current_span("agent's step"):
            publisher.create("session-1", "not sampled", {})
    await here.answered(2)
    await running.stop()
    assert exported.get_finished_spans() == ()


def test_a_large_batch_is_traced_in_part(provider: TracerProvider, exported: InMemorySpanExporter) -> None:
    parent = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    records = [command(number, EventType.CREATE, CREATE) for number in range(MOST_PER_BATCH + 50)]
    for record in records:
        record.headers.append(parent)
    observer, told = TracingObserver(provider, "waypost.commands"), batch(*records)
    observer.applied(0, told)
    observer.emitted(0, told, 0.001)
    names = Counter(span.name for span in exported.get_finished_spans())
    assert names == dict.fromkeys(("waypost apply", "waypost commit", "waypost emit"), MOST_PER_BATCH)


def test_without_an_sdk_there_is_nothing_to_tell() -> None:
    assert configured_provider() is None
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
