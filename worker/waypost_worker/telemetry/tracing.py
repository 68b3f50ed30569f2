"""Spans of a worker that continue the trace of the agent who sent the command.

A command whose ``traceparent`` header says that it is sampled gets three spans: ``waypost apply``, a child of
the agent's span, and below it ``waypost commit`` and ``waypost emit``. Its result carries the agent's
``traceparent`` on (not a span of the worker's: results are a function of the log alone), so what a subscriber
does is another child of the agent's span.

Without an SDK there is no observer, and nothing costs anything.
"""

import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from waypost import __version__
from waypost.wire.envelope import Envelope
from waypost_worker.config.settings import SettingsError
from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.ownership import Acquired
from waypost_worker.partition.ports import OwnerError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# Three spans of about 20 us each: with more, a batch would take noticeably longer. Agents choose the sampling.
MOST_PER_BATCH: Final = 100
_NANO: Final = 1_000_000_000
_TYPE_HEADER: Final = 3


class TracingObserver(Observer):
    """Makes spans of what owners tell. ``commands_topic`` names where the commands came from."""

    def __init__(self, provider: trace.TracerProvider, commands_topic: str) -> None:
        self._tracer = provider.get_tracer("waypost.worker", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._topic = commands_topic
        self._applied: dict[int, dict[int, trace.Span]] = {}

    @override
    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        pass

    @override
    def applied(self, partition: int, batch: AppliedBatch) -> None:
        now = time.time_ns()
        began = now - int(batch.seconds * _NANO)
        committing = now - int(batch.commit_seconds * _NANO)
        spans = self._applied[partition] = {}
        for decoded, (offset, result) in zip(batch.commands, batch.made, strict=True):
            envelope = decoded.envelope
            if envelope is None or not _is_sampled(envelope.traceparent):
                continue
            span = self._tracer.start_span(
                "waypost apply",
                self._parent(envelope),
                trace.SpanKind.CONSUMER,
                {
                    "messaging.system": "kafka",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": self._topic,
                    "messaging.destination.partition.id": str(partition),
                    "messaging.kafka.offset": offset,
                    "cloudevents.event_id": envelope.id,
                    "cloudevents.event_type": envelope.type,
                    "waypost.result_type": result.headers[_TYPE_HEADER][1].decode(),
                },
                start_time=began,
            )
            self._child("waypost commit", span, trace.SpanKind.CLIENT, committing, now)
            span.end(now)
            spans[offset] = span
            if len(spans) >= MOST_PER_BATCH:
                break

    @override
    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        now = time.time_ns()
        began = now - int(seconds * _NANO)
        first = batch.results[0][0]
        for offset, span in self._applied.pop(partition, {}).items():
            if offset >= first:  # a result that already existed was only compared
                self._child("waypost emit", span, trace.SpanKind.PRODUCER, began, now)

    @override
    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        self._applied.pop(partition, None)

    def _parent(self, envelope: Envelope) -> Any:
        text = (envelope.traceparent or b"").decode(errors="replace")
        return self._propagator.extract({"traceparent": text})

    def _child(self, name: str, parent: trace.Span, kind: trace.SpanKind, began: int, ended: int) -> None:
        context = trace.set_span_in_context(parent)
        self._tracer.start_span(name, context, kind, start_time=began).end(ended)


def _is_sampled(traceparent: bytes | None) -> bool:
    # 00-<trace id>-<span id>-<flags>; the lowest bit of the flags means sampled.
    return traceparent is not None and len(traceparent) >= 55 and traceparent[54:55] in b"13579bdfBDF"


def start_exporting(endpoint: str) -> "TracerProvider":
    """Create a provider that sends spans to an OTLP collector over HTTP, in batches, from a separate thread.

    ``endpoint`` is the collector's base address, as in ``http://localhost:4318``. Headers, certificates and
    resource attributes come from the SDK's own ``OTEL_`` variables. SettingsError if the SDK is not installed.
    Shut the provider down at the end: it sends what it still holds.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"traces can't be sent, {error.name} is not installed: pip install 'waypost[telemetry]', or unset "
            "WAYPOST_OTLP_ENDPOINT"
        ) from None
    resource = Resource.create({"service.name": "waypost-worker", "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def configured_provider() -> trace.TracerProvider | None:
    """The provider that the surrounding program has set up (``opentelemetry-instrument``, say), if any."""
    provider = trace.get_tracer_provider()
    return provider if type(provider).__module__.startswith("opentelemetry.sdk.") else None
