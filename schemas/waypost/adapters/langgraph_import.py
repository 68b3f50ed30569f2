"""Takes threads over from LangGraph's own savers: PostgresSaver, SqliteSaver and their asynchronous versions.

Values are copied as they are encoded, so no object of a thread is ever built. A thread that was taken over before gets
only what it lacks. Needs the extra ``langgraph``.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from langgraph.checkpoint.base import CheckpointTuple

from waypost.adapters import _langgraph_encoded as encoded
from waypost.adapters import _langgraph_layout as layout
from waypost.adapters._langgraph_listing import NEWEST
from waypost.adapters._langgraph_sources import Source as Source
from waypost.adapters._langgraph_sources import SourceError as SourceError
from waypost.adapters._langgraph_sources import SourceThread
from waypost.adapters._langgraph_sources import opened as opened
from waypost.adapters._langgraph_threads import name_metadata, session_of_thread
from waypost.adapters.allowed_types import DecodeError, UnreadableValueError, shown
from waypost.adapters.backend import Backend
from waypost.adapters.records import FULL, Record, containing, divided
from waypost.errors import InvalidCommandError, WaypostError

_PAGE: Final = 50  # checkpoints per read when comparing
_TOGETHER: Final = 200  # records per append
_ADVICE: Final = "Delete old checkpoints of the thread in the source"


@dataclass(slots=True)
class Outcome:
    """The outcome for a thread. If it has ``problems``, no part of it was imported, unless they say otherwise.

    ``present`` checkpoints already existed. ``types`` must be allowed so that the thread can be read.
    """

    thread_id: str
    imported: int = 0
    present: int = 0
    types: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


class ThreadImport:
    """The import of threads from one source.

    Args:
        backend: The connection to Kafka and Postgres.
        source: Where the threads are now.
    """

    def __init__(self, backend: Backend, source: Source) -> None:
        self._backend = backend
        self._source = source

    async def take(self, thread_id: str, *, dry_run: bool = False) -> Outcome:
        """Import what Waypost lacks of a thread, and wait until it is applied. ``dry_run`` only looks.

        A thread is left out as a whole if something in it can't be read, if it would not fit, or if an agent has
        continued it in Waypost since a part was imported.
        """
        outcome = Outcome(thread_id)
        try:
            records = await self._records(outcome)
        except DecodeError as error:
            outcome.problems.append(error.reason)
        except (InvalidCommandError, UnreadableValueError) as error:
            outcome.problems.append(str(error))
        if outcome.problems:
            outcome.imported = 0
        elif not dry_run:
            await self._append(outcome, records)
        return outcome

    async def _append(self, outcome: Outcome, records: Sequence[Record]) -> None:
        session_id = session_of_thread(outcome.thread_id)
        for start in range(0, len(records), _TOGETHER):
            group = records[start : start + _TOGETHER]
            try:
                await self._backend.append(session_id, group, durability="applied", advice=_ADVICE)
            except WaypostError as error:
                outcome.problems.append(
                    f"only a part of it was imported ({error}). Run the same command again for the rest"
                )
                outcome.imported = 0
                return

    async def compare(self, thread_id: str) -> list[str]:
        """Read a thread on both sides, and name each checkpoint that Waypost lacks or has otherwise."""
        found = await self._source.thread(thread_id)
        stored = await self._stored(thread_id)
        told = list(found.problems)
        for each in found.checkpoints:
            other = stored.get(each.key)
            if other is None:
                told.append(f"{_named(each.key)} is missing in Waypost")
            elif parts := encoded.differences(each, other):
                told.append(f"{_named(each.key)} differs in Waypost: {', '.join(parts)}")
        # Both sides list the newest first, and a run continues from that one.
        keys = [each.key for each in reversed(found.checkpoints)]
        of_the_source = set(keys)
        if not told and [key for key in stored if key in of_the_source] != keys:
            told.append("its checkpoints have another order in Waypost")
        return told

    async def _records(self, outcome: Outcome) -> list[Record]:
        found = await self._source.thread(outcome.thread_id)
        outcome.problems += found.problems
        for each in found.checkpoints:
            try:
                outcome.types |= each.needed_types()
            except DecodeError as error:
                outcome.problems.append(f"{_named(each.key)}: {error.reason}")
        if outcome.problems:
            return []
        stored = await self._stored(outcome.thread_id)
        outcome.present = sum(each.key in stored for each in found.checkpoints)
        outcome.imported = len(found.checkpoints) - outcome.present
        outcome.problems += _conflicts(found, stored)
        if outcome.problems:
            return []
        records = await asyncio.to_thread(_lacking, outcome.thread_id, found, stored)
        count = sum(1 + len(divided(record).parts) for record in records)
        if len(stored) + count > FULL:
            outcome.problems.append(
                f"it would take {count} records, and a thread has room for {FULL}. {_ADVICE}, then import it"
            )
            return []
        return records

    async def _stored(self, thread_id: str) -> dict[layout.Key, CheckpointTuple]:
        """Read what Waypost has of a thread, newest first, with values as they are encoded."""
        session_id = session_of_thread(thread_id)
        await self._backend.settled(session_id)
        found: dict[layout.Key, CheckpointTuple] = {}
        end = NEWEST
        while True:
            rows = await self._backend.stored(session_id, "thread", containing({}), None, None, end, _PAGE)
            chosen = [row for row in layout.sound(rows) if row.chosen]
            if not chosen:
                return found
            end = chosen[0].number
            for each in layout.tuples(thread_id, rows, encoded.BARE, encoded.VALUES):
                named = each.config["configurable"]
                found.setdefault((named["checkpoint_ns"], named["checkpoint_id"]), each)


def _conflicts(found: SourceThread, stored: dict[layout.Key, CheckpointTuple]) -> list[str]:
    """Say why what is missing can't be added behind what is there."""
    keys = [each.key for each in found.checkpoints]
    if all(key in stored for key in keys):
        return []
    if strange := [key for key in stored if key not in set(keys)]:
        return [
            f"an agent has continued it in Waypost: {_named(strange[0])} is not in the source. What the source has "
            "more can't be added behind that"
        ]
    count = len(stored)
    if not all(key in stored for key in keys[:count]):
        return [
            "the source has checkpoints that are older than what Waypost has, so they can't be added behind it"
        ]
    return []


def _lacking(thread_id: str, found: SourceThread, stored: dict[layout.Key, CheckpointTuple]) -> list[Record]:
    """Yield the records that Waypost lacks, in the order in which to store them."""
    name = name_metadata(session_of_thread(thread_id), thread_id)
    values: dict[str, encoded.Encoded] = {}
    records: list[Record] = []
    for each in found.checkpoints:
        mine = encoded.digests_of(each)
        for digest, value in mine.items():
            if values.get(digest, value) != value:
                raise DecodeError(f"{_named(each.key)}: a channel has two values with one version")
        if unversioned := each.values.keys() - each.bare["channel_versions"].keys():
            raise DecodeError(
                f"{_named(each.key)}: channel {sorted(unversioned)[0]!r} has a value and no version"
            )
        if (other := stored.get(each.key)) is None:
            records += encoded.records_of(each, values, name)
        else:
            there = other.pending_writes or []
            lacking = {
                write.task_id
                for write in each.writes
                if (write.task_id, write.channel, write.value) not in there
            }
            again = [write for write in each.writes if write.task_id in lacking]
            records += encoded.writes_records(each.key, again)
        values |= mine
    return records


def _named(key: layout.Key) -> str:
    ns, checkpoint_id = key
    where = f" of namespace {shown(repr(ns))}" if ns else ""
    return f"checkpoint {shown(repr(checkpoint_id))}{where}"


def all_types(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the types that ``allowed_types`` must name so that these threads can be read."""
    return sorted(set().union(*(outcome.types for outcome in outcomes)))
