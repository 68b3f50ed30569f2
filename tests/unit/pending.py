"""Commands for tests of what lies behind the publisher's calls."""

from waypost.publisher.pending import Pending
from waypost.wire.event_types import EventType

TIME = b"2026-11-24T08:24:59.123456Z"


def pending(
    command_id: str, session_id: str = "session", value: bytes = b'{"name":"n","data":{}}'
) -> Pending:
    return Pending(command_id, EventType.CREATE, session_id, value, TIME)
