"""What is made again from the command log is refused if the log is another one by then."""

import pytest
from tests.simulation.broker import CommandRecord

from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition import outbox
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import RefusedError

CLEAR = command_headers("c-5", b"agent", EventType.CLEAR.wire, b"2026-11-30T08:00:00Z")


@pytest.mark.parametrize(
    "record",
    [
        CommandRecord(5, 0, b"\xff", b"{}", []),
        CommandRecord(5, 0, b"s", b"not JSON", CLEAR),
        CommandRecord(5, 0, b"s", b"{}", CLEAR),
    ],
    ids=["invalid key", "invalid body", "another command"],
)
def test_a_create_whose_place_another_command_took_is_refused(record: CommandRecord) -> None:
    items = [outbox.created_item(5, 1, ())]
    with pytest.raises(RefusedError, match="offset 5 is a create, but the topic holds another"):
        outbox.results(items, {5: record}, ResultEncoder("results", 0))
