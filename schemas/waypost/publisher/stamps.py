"""Stamps of every command: a random id, the time, and its trace. Designed to be cheap."""

import os
import sys
import time
from typing import Final

from waypost.model.times import format_micros

_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_AT_ONCE: Final = 64
_random: list[str] = []  # fetched from the system for many ids in one call, and never used twice


def new_id() -> str:
    """A random UUID (version 4, RFC 9562) as text. A fork never repeats one: the child begins with none."""
    while True:
        try:
            h = _random.pop()  # atomic, so threads share them
        except IndexError:
            fetched = os.urandom(16 * _AT_ONCE).hex()
            _random.extend([fetched[at : at + 32] for at in range(0, 32 * _AT_ONCE, 32)])
        else:
            return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:]}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.clear)


class Clock:
    """Now, as RFC 3339 text in UTC with six decimals. The text of a second is made once."""

    def __init__(self) -> None:
        self._second: tuple[int, bytes] = (-1, b"")

    def now(self) -> bytes:
        """``2026-11-24T08:24:59.123456Z``."""
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        known, text = self._second
        if known != second:
            text = format_micros(second * 1_000_000)[:20].encode()
            self._second = (second, text)
        return b"%b%06dZ" % (text, rest // 1000)


def current_traceparent() -> bytes | None:
    """The W3C trace context of the active OpenTelemetry span, where the application uses OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}".encode()
