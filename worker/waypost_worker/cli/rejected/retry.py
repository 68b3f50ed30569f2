"""``waypost rejected retry``: publish rejected commands again, each with its own id and headers.

The new place of a command shows its outcome. Once its partition is applied beyond that place, either there is a
rejected command there, or the command was accepted. Only then is the old one removed. A retry that is interrupted can
be run again: a command that was already accepted is then a duplicate, which changes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from waypost.statements import load_statement
from waypost_worker.cli.rejected.filters import (
    AllFlag,
    CodeFlag,
    PositionArgument,
    SessionFlag,
    SinceFlag,
    UntilFlag,
    chosen_filters,
)
from waypost_worker.cli.support.connections import (
    kafka_connection,
    kafka_errors,
    query,
    reading,
    require_topics,
    topic_partitions,
)
from waypost_worker.cli.support.databases import Databases, connected
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import (
    DONE,
    FAILED,
    USAGE,
    CommandError,
    Stream,
    confirm,
    event_line,
    note,
)
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.settings import Settings
from waypost_worker.operations.rejected import LARGEST, RefusedCommand, RejectedFilters, refused_command

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

_PAGE: Final = 100  # a command may have a megabyte
_BAD: Final = ("refused again", "would be refused", "not sent")


def retry(
    *places: PositionArgument,
    session: SessionFlag = None,
    code: CodeFlag = None,
    since: SinceFlag = None,
    until: UntilFlag = None,
    every: AllFlag = False,
    value: Annotated[
        Path | None, Parameter(help="file with the value to send instead, for one PLACE")
    ] = None,
    dry_run: Annotated[bool, Parameter(help="show what would be published, and publish nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Publish rejected commands again.

    Each keeps its command id and headers, and goes to the partition that its session belongs to. Commands that would
    only be rejected again are left alone. An accepted command is removed from the list; one that is rejected again is
    listed at its new place. The exit code is 1 if any was not accepted.

    For example:

      waypost rejected retry --code misrouted --dry-run
      waypost rejected retry 2/1841 --value fixed.json
      waypost rejected retry --since 2026-11-24T08:00:00Z --yes
    """
    settings = common.settings()
    filters = chosen_filters(places, session, code, since, until, every)
    if value is not None and len(places) != 1:
        raise CommandError("--value replaces one command: name its PLACE", USAGE)
    try:
        fixed = None if value is None else value.read_bytes()
    except OSError as error:
        raise CommandError(f"{value} can't be read: {error.strerror}", USAGE) from None
    if not dry_run:
        confirm("this publishes rejected commands again", yes)
    counts: Counter[str] = Counter()
    with Stream(common.output) as stream:
        asyncio.run(_Retry(settings, filters, fixed, timeout, stream, counts).run(dry_run))
    note(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "none matches")
    return FAILED if any(counts[outcome] for outcome in _BAD) else DONE


class _Retry:
    """A run of the command, page after page."""

    def __init__(
        self,
        settings: Settings,
        filters: RejectedFilters,
        fixed: bytes | None,
        timeout: float,
        stream: Stream,
        counts: Counter[str],
    ) -> None:
        self._settings = settings
        self._filters = filters
        self._fixed = fixed
        self._timeout = timeout
        self._stream = stream
        self._counts = counts

    async def run(self, dry_run: bool) -> None:
        await require_topics(self._settings)
        partitions = (await topic_partitions(self._settings))[self._settings.topics.commands]
        async with connected(self._settings) as databases, _producing(self._settings) as producer:
            async for page in self._pages(databases):
                fit = []
                for refused in page:
                    if (problem := refused.problem()) is not None:
                        self._tell(refused, "would be refused", problem.code, problem.message)
                    elif dry_run:
                        self._tell(refused, "would be published", partition=refused.target(partitions))
                    else:
                        fit.append(refused)
                if fit:
                    await self._publish(databases, producer, fit, partitions)

    async def _pages(self, databases: Databases) -> AsyncIterator[list[RefusedCommand]]:
        # All positions before the first page, so that commands rejected since then are ignored.
        standing = [await database.fetch(self._sql("rejected/positions")) for database in databases]
        for database, positions in zip(databases, standing, strict=True):
            bounds = [list(column) for column in zip(*positions, strict=True)] or [[], []]
            after = (-1, -1)
            while rows := await database.fetch(
                self._sql("rejected/select"), *self._filters.parameters(), *bounds, *after, _PAGE
            ):
                yield [refused_command(row, self._fixed) for row in rows]
                after = (rows[-1]["partition"], rows[-1]["offset"])

    async def _publish(
        self,
        databases: Databases,
        producer: "AIOKafkaProducer",
        page: Sequence[RefusedCommand],
        partitions: int,
    ) -> None:
        from aiokafka.errors import MessageSizeTooLargeError

        sent: list[tuple[RefusedCommand, Any]] = []
        async with kafka_errors(self._settings):
            for refused in page:
                try:
                    future = await producer.send(
                        self._settings.topics.commands,
                        refused.value,
                        refused.key,
                        partition=refused.target(partitions),
                        headers=refused.headers,
                    )
                except MessageSizeTooLargeError as error:
                    self._tell(refused, "not sent", message=str(error))
                else:
                    sent.append((refused, future))
            acknowledged = await asyncio.gather(*(future for _, future in sent), return_exceptions=True)
        landed: dict[tuple[int, int], RefusedCommand] = {}
        for (refused, _), record in zip(sent, acknowledged, strict=True):
            if isinstance(record, BaseException):
                self._tell(refused, "not sent", message=f"{type(record).__name__}: {record}")
            else:
                landed[record.partition, record.offset] = refused
        await self._applied(landed)
        await self._settle(databases, landed)

    async def _applied(self, landed: dict[tuple[int, int], RefusedCommand]) -> None:
        """Wait until all of them have results."""
        last: dict[int, int] = {}
        for partition, offset in landed:
            last[partition] = max(offset, last.get(partition, -1))
        async with reading(self._settings) as reader:
            for token in last.items():
                try:
                    await reader.wait_for(token, self._timeout)
                except TimeoutError as error:
                    raise CommandError(
                        f"{len(landed)} commands are published, and still in the list. Run this command again when "
                        f"a worker has caught up. {error}"
                    ) from None

    async def _settle(self, databases: Databases, landed: dict[tuple[int, int], RefusedCommand]) -> None:
        """Report their outcomes, and drop the old ones: commands that were rejected again have new ones."""
        again = {
            (row["partition"], row["offset"]): row
            for database, places in databases.grouped(landed)
            for row in await database.fetch(self._shared("rejected_at"), *_columns(places))
        }
        for place, refused in landed.items():
            new = f"{place[0]}/{place[1]}"
            if (row := again.get(place)) is None:
                self._tell(refused, "accepted", new_place=new)
            else:
                self._tell(refused, "refused again", row["code"], row["message"], new_place=new)
        old = [(refused.partition, refused.offset) for refused in landed.values()]
        for database, places in databases.grouped(old):
            await database.execute(self._shared("rejected_drop"), *_columns(places))

    def _tell(
        self, refused: RefusedCommand, outcome: str, code: str = "", message: str = "", **more: Any
    ) -> None:
        self._counts[outcome] += 1
        said = {"code": code, "message": message} if message else {}
        row = {
            "place": refused.place,
            "session_id": refused.session_id,
            "command_id": refused.command_id,
            "was": refused.code,
            "outcome": outcome,
            **said,
            **more,
        }
        about = f"{outcome} {code and f'{code}: '}{message}{more.get('new_place') or ''}".strip()
        self._stream.show(row, event_line(None, refused.place, refused.session_id, about))

    def _sql(self, name: str) -> str:
        return query(name, self._settings.postgres_schema)

    def _shared(self, name: str) -> str:
        return load_statement("waypost_worker.operations", name, self._settings.postgres_schema)


def _columns(places: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [place[0] for place in places], [place[1] for place in places]


@asynccontextmanager
async def _producing(settings: Settings) -> "AsyncIterator[AIOKafkaProducer]":
    from aiokafka import AIOKafkaProducer

    async with kafka_errors(settings):
        producer = AIOKafkaProducer(
            **kafka_connection(settings).options(), enable_idempotence=True, max_request_size=LARGEST
        )
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()
