"""Where a checkpoint was made is found in a log with orders to skip commands."""

from collections.abc import Sequence
from typing import Any

from tests.simulation.broker import CommandRecord
from tests.support.commands import create_body
from tests.support.signing import public_key, signed_headers

from waypost.wire.encode import authority_body, skip_body
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.recovery.replay.until import LogPosition, find_checkpoint

NOW = 1_764_000_000_000
TIME = b"2025-11-24T16:00:00Z"


class Log:
    """The command log of a topic with one partition."""

    def __init__(self, piece: int = 1000) -> None:
        self.records: list[CommandRecord] = []
        self.looks: list[tuple[int, int]] = []
        self._piece = piece
        self._at = 0

    def create(self, session_id: str) -> CommandRecord:
        headers = command_headers(f"c{len(self.records)}", b"/tests", EventType.CREATE.wire, TIME)
        return self._append(session_id.encode(), create_body("made", {}), headers)

    def signed(self, kind: EventType, body: bytes) -> CommandRecord:
        offset = len(self.records)
        at = NOW * 1000 + offset
        return self._append(None, body, signed_headers("one", 0, kind.wire, f"p{offset}", at, body))

    def _append(self, key: bytes | None, body: bytes, headers: Any) -> CommandRecord:
        self.records.append(CommandRecord(len(self.records), NOW, key, body, headers))
        return self.records[-1]

    async def bounds(self) -> tuple[int, int]:
        return 0, len(self.records)

    async def seek(self, offset: int) -> None:
        self._at = offset

    async def fetch(self, most: int) -> Sequence[CommandRecord]:
        found = self.records[self._at : self._at + min(most, self._piece)]
        self._at += len(found)
        return found

    async def read(self, first: int, end: int) -> Sequence[CommandRecord]:
        self.looks.append((first, end))
        return self.records[first:end]


async def found(log: Any, checkpoint_id: str) -> LogPosition:
    return await find_checkpoint({0: log}, checkpoint_id)


async def test_a_skipped_command_of_another_session_is_in_nobodys_way() -> None:
    log = Log(piece=1)
    log.signed(EventType.CONFIGURE_AUTHORITY, authority_body(public_key("one")))
    skipped = log.create("other")
    log.signed(EventType.SKIP, skip_body(skipped.offset, anchor_of(skipped), "a bug"))
    made = log.create("mine")
    assert await found(log, "mine:1") == LogPosition(0, made.offset)


async def test_an_order_that_names_another_record_is_checked_once() -> None:
    """Each look at the log is a connection of its own."""
    log = Log(piece=1)
    log.signed(EventType.CONFIGURE_AUTHORITY, authority_body(public_key("one")))
    named = log.create("other")
    log.signed(EventType.SKIP, skip_body(named.offset, bytes(16), "another record"))
    for _ in range(5):
        made = log.create("mine")
    assert await found(log, "mine:5") == LogPosition(0, made.offset)
    assert log.looks == [(named.offset, named.offset + 1)]


async def test_a_skipped_command_of_the_session_makes_no_checkpoint() -> None:
    log = Log()
    log.signed(EventType.CONFIGURE_AUTHORITY, authority_body(public_key("one")))
    skipped = log.create("mine")
    made = log.create("mine")
    log.signed(EventType.SKIP, skip_body(skipped.offset, anchor_of(skipped), "a bug"))
    assert await found(log, "mine:1") == LogPosition(0, made.offset)
