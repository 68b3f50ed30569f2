"""The command in the log that a checkpoint was made by. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from waypost.model.times import from_micros
from waypost.wire.envelope import KafkaRecord

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_SHOWN: Final = 4096


@dataclass(frozen=True, slots=True)
class LogRecord:
    """Record as the log has it. ``value`` is its beginning as text, ``trace`` the address of its trace."""

    partition: int
    offset: int
    recorded_at: datetime
    headers: tuple[tuple[str, str], ...]
    value: str
    size: int
    source: str
    trace_id: str | None
    trace: str | None


def log_record(partition: int, record: KafkaRecord, trace_url: str | None) -> LogRecord:
    """Return a record for its page. ``trace_url`` is an address with ``{trace_id}`` in it."""
    headers = tuple(
        (name, "null" if value is None else value.decode(errors="backslashreplace"))
        for name, value in record.headers
    )
    by_name = dict(headers)
    found = _TRACEPARENT.fullmatch(by_name.get("traceparent", ""))
    trace_id = None if found is None else found[1]
    value = record.value or b""
    return LogRecord(
        partition,
        record.offset,
        from_micros(record.timestamp * 1000),
        headers,
        value[:_SHOWN].decode(errors="backslashreplace"),
        len(value),
        by_name.get("ce_source", "unknown"),
        trace_id,
        None if trace_id is None or not trace_url else trace_url.replace("{trace_id}", trace_id),
    )
