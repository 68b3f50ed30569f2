"""The commands that add an adapter's records: one create, or as few imports as possible. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import orjson

from waypost.adapters.records import POLICY, EncodedRecord, Grouping, import_item
from waypost.model.times import format_micros, to_micros
from waypost.wire.encode import encoded_create, import_body
from waypost.wire.event_types import EventType


class Command(NamedTuple):
    """A command, and how many records it adds."""

    kind: EventType
    body: bytes
    timestamp: datetime | None
    records: int


POLICY_COMMAND: Final = Command(EventType.CONFIGURE, orjson.dumps(POLICY), None, 0)


def create_command(record: EncodedRecord, timestamp: datetime | None) -> Command:
    """Return the create of one record, taken now by default."""
    parts = encoded_create(*record)
    return Command(EventType.CREATE, parts.body(parts.data), timestamp, records=1)


def commands_of(
    records: Sequence[EncodedRecord], timestamp: datetime | None, *, encrypts: bool = False
) -> list[Command]:
    """Return one create, or as few imports as possible."""
    if len(records) == 1:
        return [create_command(records[0], timestamp)]
    now = format_micros(to_micros(timestamp or datetime.now().astimezone()))
    groups = Grouping(encrypts=encrypts)
    full: list[list[bytes]] = []
    for record in records:
        item = import_item(record.name, record.raw, record.metadata, now)
        if group := groups.add(item):
            full.append(group)
    return [
        Command(EventType.IMPORT, import_body(group), None, records=len(group))
        for group in [*full, groups.group]
    ]
