"""What results answer: told from the records of the results topic."""

from collections.abc import Sequence

import orjson
from tests.simulation.broker import ResultsPartition, StoredResult

from waypost.wire.event_types import EventType


def answered_command(record: StoredResult) -> int:
    """The command offset of a result; -1 of what is none."""
    if dict(record.headers).get("ce_type") == EventType.ACQUIRED.wire or record.producer_id < 0:
        return -1
    return int(orjson.loads(record.value)["command"]["offset"])


def last_answered(topic: ResultsPartition) -> int:
    """The command offset of the last result that the topic ever held, or -1."""
    there = _last(topic.records)
    return there if there >= 0 else _last(topic.trimmed)


def _last(records: Sequence[StoredResult]) -> int:
    return next((offset for record in reversed(records) if (offset := answered_command(record)) >= 0), -1)
