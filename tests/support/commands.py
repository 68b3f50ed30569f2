"""Bytes of commands as agents without this library may send them."""

from collections.abc import Mapping
from typing import Any

import orjson

from waypost.model.times import format_micros
from waypost.wire.encode import create_parts


def create_body(name: str, data: dict[str, Any], metadata: dict[str, Any] | None = None) -> bytes:
    """Return the body of a create."""
    parts = create_parts(name, data, metadata)
    return parts.body(parts.data)


def structured_event(attributes: Mapping[str, str], taken_at: int, body: bytes) -> bytes:
    """Return a command in structured mode: the value of a record with content-type application/cloudevents+json."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        **attributes,
        "time": format_micros(taken_at),
        "datacontenttype": "application/json",
        "data": orjson.Fragment(body),
    }
    return orjson.dumps(event)
