"""Writes that nobody waits for: published, shown to this process's reads until they are applied, and their outcomes.

A rejection is found in Postgres once a worker is past the write. It is logged, and raised by the next call on the
session.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from waypost.adapters.commands import Command
from waypost.adapters.connection import Connection
from waypost.adapters.own_writes import OwnWrite, OwnWrites
from waypost.adapters.records import EncodedRecord, Row
from waypost.errors import (
    AccessDeniedError,
    DeliveryError,
    ReaderError,
    ReaderTimeoutError,
    ShardMapError,
    WaypostError,
)
from waypost.publisher.delivery import DeliveryFuture
from waypost.publisher.pending import Pending

log = logging.getLogger("waypost")
#: #: How many parts of a large record are under way in parallel.
PARTS_AT_ONCE: Final = 8
_SETTLE_SECONDS: Final = 0.5
_OFFSETS: Final = 1_000  # in one question


class RejectedWriteError(WaypostError):
    """A write of an earlier call that the worker rejected, or that was lost on the way. No part of it is stored.

    ``session_id`` and ``code``, one of the rejection codes or ``lost``, say which and why.
    """

    def __init__(self, session_id: str, code: str, message: str) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.code = code


class UnconfirmedWrites:
    """Publishes writes and finds out what became of them, in the background or when a read comes past them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.own = OwnWrites()
        self._rejected: dict[str, RejectedWriteError] = {}
        self._settling: asyncio.Task[None] | None = None

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the task that looks for rejections, if there is one."""
        return [] if self._settling is None else [self._settling]

    def raise_rejected(self, session_id: str) -> None:
        """Raise what became of an earlier write to a session, once, if that was rejected or lost."""
        if self._rejected and (error := self._rejected.pop(session_id, None)) is not None:
            raise error

    async def publish(
        self,
        session_id: str,
        commands: Sequence[Command],
        records: Sequence[EncodedRecord],
        *,
        until_logged: bool,
    ) -> None:
        """Publish commands that add records: parts first, then the records in their order."""
        landings: list[tuple[Pending, DeliveryFuture]] = []
        rows = self._rows_of(records)
        parts = sum(command.records for command in commands) - len(rows)
        for index, command in enumerate(commands):
            if index < parts and index % PARTS_AT_ONCE == PARTS_AT_ONCE - 1:
                await self._connection.publisher.drain()
            added = [] if index < parts else [rows.pop(0) for _ in range(command.records)]
            landings.append(self.publish_one(session_id, command, added))
        if until_logged:
            try:
                await self._until_landed(landings)
            except DeliveryError:
                self._rejected.pop(session_id, None)  # it is raised now
                raise

    def publish_one(
        self, session_id: str, command: Command, rows: Sequence[Row]
    ) -> tuple[Pending, DeliveryFuture]:
        """Publish a command that changes nothing but to add these records."""
        pending, landing = self._connection.publisher._publish_tracked(
            command.kind, session_id, command.body, command.timestamp
        )
        write = self.own.add(session_id, rows, command.records)
        write.landing = landing
        landing.add_done_callback(partial(self._landed, write))
        if self._settling is None or self._settling.done():
            self._settling = asyncio.get_running_loop().create_task(self._settle_all())
        return pending, landing

    async def _until_landed(self, landings: Sequence[tuple[Pending, DeliveryFuture]]) -> None:
        limit = asyncio.timeout(self._connection.timeout)
        try:
            async with limit:
                for _, landing in landings:
                    await asyncio.shield(landing)
        except TimeoutError:
            if not limit.expired():
                raise
            pending, landing = next((each for each in landings if not each[1].done()), landings[-1])
            raise self._connection.publisher._undelivered_error(
                pending, landing, f"within {self._connection.timeout:g} s"
            ) from None

    def _rows_of(self, records: Sequence[EncodedRecord]) -> list[Row]:
        now = datetime.now(UTC)
        return [Row(self.own.next_number(), each.name, each.raw, each.metadata, now) for each in records]

    def _landed(self, write: OwnWrite, landing: DeliveryFuture) -> None:
        """Note where a write is in Kafka, or that it never will be there."""
        if landing.cancelled():
            return
        if (error := landing.exception()) is None:
            partition, offset = landing.result()
            if offset < 0:  # Kafka knows no longer where
                self.own.drop(write)
            else:
                self.own.landed(write, partition, offset)
        else:
            self.own.drop(write)
            log.error("A write to %r was lost: %s", write.session_id, error)
            self._rejected[write.session_id] = RejectedWriteError(
                write.session_id, "lost", f"An earlier write to {write.session_id!r} was lost: {error}"
            )

    async def until_in_kafka(self, session_id: str) -> None:
        """Wait until Kafka has this process's own writes to a session, or never will."""
        landings = [write.landing for write in self.own.of_session(session_id) if write.landing is not None]
        timeout = self._connection.timeout
        try:
            async with asyncio.timeout(timeout):
                for landing in landings:
                    await asyncio.wait({landing})
        except TimeoutError:
            raise ReaderTimeoutError(
                f"Kafka does not have this process's own writes to {session_id!r} yet, after {timeout:g} s. "
                "Nothing was read, and nothing is lost."
            ) from None

    async def settle_session(self, session_id: str, partition: int, position: int) -> None:
        """Find out what became of a session's writes that Postgres is past, and raise if one was rejected."""
        if any(
            write.offset is not None and write.offset < position for write in self.own.of_session(session_id)
        ):
            await self._settle(partition, position)
            self.raise_rejected(session_id)

    async def _settle_all(self) -> None:
        """Find out in the background what became of writes that nobody waits for."""
        while self.own:
            await asyncio.sleep(_SETTLE_SECONDS)
            try:
                for partition in self.own.partitions():
                    await self._settle(partition, await self._connection.barrier.position_of(partition))
            except (ReaderError, AccessDeniedError, ShardMapError) as error:
                log.debug("it is not known what became of writes: %r", error)

    async def _settle(self, partition: int, position: int) -> None:
        passed = self.own.passed(partition, position)
        for start in range(0, len(passed), _OFFSETS):
            some = passed[start : start + _OFFSETS]
            by_offset = {write.offset: write for write in some}
            pool = await self._connection.reader._shards.of_partition(partition)
            for row in await pool.fetch("adapters/rejected", partition, list(by_offset)):
                if not self.own.is_open(by_offset[row["offset"]]):
                    continue  # it was reported while this checked
                session_id = by_offset[row["offset"]].session_id
                error = RejectedWriteError(
                    session_id,
                    row["code"],
                    f"The worker rejected an earlier write to {session_id!r}, so no part of it is stored: "
                    f"{row['code']}: {row['message']}",
                )
                log.error("%s", error)
                self._rejected[session_id] = error
            for write in some:
                self.own.drop(write)
