"""Continuing the trace of an event, if the application uses OpenTelemetry."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waypost.errors import InvalidArgumentError, quoted
from waypost.subscriber.events import Event


@contextmanager
def continued_trace(event: Event) -> Iterator[None]:
    """Continue the trace of the agent that sent the event's command, within a ``with`` block.

    :meth:`waypost.Subscriber.run` does this around its handler; with the iterator, do it yourself. The application's
    own tracer provider creates a span ``waypost handle``. Without OpenTelemetry, or for an event without
    ``traceparent``, nothing happens.
    """
    if not isinstance(event, Event):
        raise InvalidArgumentError(f"pass an event, not {quoted(event)}")
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None or event.traceparent is None:
        yield
        return
    # Only now, and only where the application has it loaded already.
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract({"traceparent": event.traceparent})
    attributes = {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.partition.id": str(event.partition),
        "messaging.kafka.offset": event.offset,
        "cloudevents.event_id": event.id,
        "cloudevents.event_type": event.type,
    }
    with trace.get_tracer("waypost").start_as_current_span(
        "waypost handle", parent, trace.SpanKind.CONSUMER, attributes
    ):
        yield
