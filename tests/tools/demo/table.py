"""The table at the end of the demo: each number, and what it means."""

from typing import Any

import orjson
from tests.oracle.books import Records

from waypost.wire.event_types import EventType
from waypost.wire.id_lists import expand_ids

# The result of the command that caused a removal lists the removed checkpoints.
_RETAINING = {EventType.CREATED, EventType.IMPORTED, EventType.CONFIGURED}


def removed_by_retention(results: Records) -> int:
    """Return how many checkpoints retention removed, according to the results."""
    return sum(
        len(expand_ids(orjson.loads(record.value))["removed"])
        for records in results.values()
        for record in records
        if dict(record.headers)["ce_type"].decode() in _RETAINING
    )


def explained(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table, from the figures of build/demo.json: what was counted, how many, what it means."""
    meant, kept, ever = found["meant_to_be_refused"], found["checkpoints"], found["checkpoints_ever"]
    retention = found["removed_by_retention"]
    latency = found["latency_ms"]
    return [
        ("commands", f"{found['commands']:,}", "published by the agents"),
        ("applied", f"{found['applied']:,}", "changed their session, each exactly once"),
        (
            "rejected",
            f"{found['rejected']:,}",
            f"{meant:,} were broken on purpose; {found['rejected'] - meant:,} named a checkpoint that was gone or "
            "never there",
        ),
        ("duplicates", f"{found['duplicates']:,}", "sent twice on purpose; the second changed nothing"),
        ("lost", f"{found['lost']:,}", "commands without a result"),
        ("doubled", f"{found['doubled']:,}", "results that came more than once"),
        (
            "rows differing",
            f"{found['rows_differing']:,}",
            "rows in Postgres that differ from an independent replay of the log",
        ),
        (
            "checkpoints kept",
            f"{kept:,} of {ever:,}",
            f"retention removed {retention:,}; deletes, clears and rollbacks removed {ever - kept - retention:,}",
        ),
        (
            "latency p50 / p99",
            f"{latency['p50']} / {latency['p99']} ms",
            f"from the agent's call to a subscriber, at {found['commands_per_second']} commands per second",
        ),
        (
            "longest at the kill",
            f"{latency['max_with_the_kill']} ms",
            "the other worker waits until it may take the partitions over",
        ),
    ]
