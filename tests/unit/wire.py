"""Bodies as they come from the wire, and how they are refused."""

from typing import Any

import orjson
import pytest

from waypost.errors import InvalidCommandError
from waypost.model.commands import Create
from waypost.wire.decode import parse_body
from waypost.wire.event_types import EventType

KB = 1024
ITEM = {"id": "a:1", "name": "n", "timestamp": "2026-11-24T08:24:59Z", "data": {}}


def refusal(command_type: str, body: bytes | dict[str, Any]) -> tuple[str, str]:
    """The code and the message with which a body is refused."""
    with pytest.raises(InvalidCommandError) as caught:
        parse_body(command_type, body if isinstance(body, bytes) else orjson.dumps(body))
    return caught.value.code, caught.value.message


def create(body: bytes | dict[str, Any]) -> Create:
    action = parse_body(EventType.CREATE, body if isinstance(body, bytes) else orjson.dumps(body))
    assert isinstance(action, Create)
    return action
