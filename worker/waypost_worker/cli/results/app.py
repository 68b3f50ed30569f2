"""``waypost results``: find records of the results topic that no worker wrote, and have workers pass over them."""

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from cyclopts import App, Parameter

from waypost.model.times import format_micros
from waypost_worker.cli.support.connections import kafka_client, kafka_errors, query, topic_partitions
from waypost_worker.cli.support.databases import Databases, connected
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, confirm, note, show_rows
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.partition.ports import ForeignRecord
    from waypost_worker.recovery.foreign_results import ForeignResult, FoundResults

app = App(name="results", help="Find results that no worker wrote, and ignore them.")
_PLACE: Final = re.compile(r"(\d{1,9})/(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)
_MOST: Final = 10_000  # accepted records of a partition: they are read at each acquisition
_COLUMNS: Final = ("place", "timestamp", "producer_id", "says", "bytes", "state")


class _Found(NamedTuple):
    """The accepted records of a partition. ``stored`` is the list as Postgres has it, None without a row."""

    stored: str | None
    left: "Sequence[ForeignRecord]"
    results: "FoundResults"


class _Stretch(NamedTuple):
    partition: int
    first: int
    last: int


@app.command
def foreign(
    *,
    partition: Annotated[
        tuple[int, ...], Parameter(help="only this partition; may be repeated", consume_multiple=False)
    ] = (),
    common: Common = NOTHING_GIVEN,
) -> int:
    """List records in the results topic that no worker wrote.

    A worker refuses a partition in which it finds one. Records are listed by
    producer, not by content: an exact copy of a result is foreign, too. The
    list starts at the position that is stored in Postgres.

    For example:

      waypost results foreign
      waypost results foreign --partition 2 -o jsonl
    """
    settings = common.settings()
    found = asyncio.run(_find_all(settings, partition))
    rows = [_row(number, one) for number, here in found.items() for one in here.results.foreign]
    show_rows(rows, common.output, _COLUMNS, "no foreign records", wrap=("says",))
    for number, here in found.items():
        if here.results.unsure:
            note(_unsure(number, here.results.unsure))
    return DONE


@app.command
def accept(
    *places: Annotated[
        str, Parameter(help="places of records, partition/offset or partition/first-last, as listed")
    ],
    dry_run: Annotated[bool, Parameter(help="show what would be accepted, and change nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Make workers ignore records in the results topic that no worker wrote.

    First find out who wrote them, and revoke that writer's permission. Only
    records that 'waypost results foreign' lists can be accepted, so a worker's
    result never is. Postgres keeps the offset and a hash of each. The records
    stay in the topic, and subscribers see them unless they ignore them.

    For example:

      waypost results accept 2/1841
      waypost results accept 2/1841-1900 --yes
    """
    settings = common.settings()
    stretches = [_stretch(place) for place in places]
    if not stretches:
        raise CommandError("Name at least one PLACE, such as 2/1841.", USAGE)
    partitions = tuple(dict.fromkeys(stretch.partition for stretch in stretches))
    found = asyncio.run(_find_all(settings, partitions))
    chosen = {number: _chosen(number, found[number].results, stretches) for number in partitions}
    rows = [_row(number, one) for number, listed in chosen.items() for one in listed]
    show_rows(rows, common.output, _COLUMNS, "all of them were already accepted", wrap=("says",))
    count = len(rows)
    if dry_run or not count:
        return DONE
    confirm(f"this makes workers ignore {count} record{'' if count == 1 else 's'} of the results topic", yes)
    asyncio.run(_accept(settings, found, chosen))
    note("accepted; workers acquire the refused partitions within 30 seconds")
    return DONE


def _row(partition: int, one: "ForeignResult") -> dict[str, Any]:
    return {
        "place": f"{partition}/{one.record.offset}",
        "timestamp": format_micros(one.timestamp * 1000) if one.timestamp >= 0 else None,
        "producer_id": one.producer_id if one.producer_id >= 0 else None,
        "says": one.says,
        "bytes": one.value_bytes,
        "state": "accepted" if one.accepted else "foreign",
    }


def _stretch(place: str) -> _Stretch:
    matched = _PLACE.fullmatch(place)
    if matched is None:
        raise CommandError(
            f"{place!r} is not a place. Use partition/offset or partition/first-last, such as 2/1841-1900.",
            USAGE,
        )
    partition, first, last = matched.groups()
    return _Stretch(int(partition), int(first), int(last or first))


def _chosen(partition: int, found: "FoundResults", stretches: Sequence[_Stretch]) -> "list[ForeignResult]":
    """Return the records to accept. Raise CommandError if a place has none that can be accepted."""
    chosen: dict[int, ForeignResult] = {}
    for stretch in stretches:
        if stretch.partition != partition:
            continue
        here = [one for one in found.foreign if stretch.first <= one.record.offset <= stretch.last]
        unsure = [offset for offset in found.unsure if stretch.first <= offset <= stretch.last]
        if unsure:
            raise CommandError(_unsure(partition, unsure))
        if not here:
            raise CommandError(
                f"There is no foreign record at {partition}/{stretch.first}"
                f"{'' if stretch.last == stretch.first else f'-{stretch.last}'}: the record there was "
                "written by a worker, or is before the position in Postgres. Nothing was changed. List the "
                "foreign ones with "
                "'waypost results foreign'."
            )
        chosen.update({one.record.offset: one for one in here if not one.accepted})
    return [chosen[offset] for offset in sorted(chosen)]


def _unsure(partition: int, offsets: Sequence[int]) -> str:
    return (
        f"Partition {partition} has records from {offsets[0]} to {offsets[-1]} whose producer is not known: the "
        "database has no owner's id, and retention removed the first fence records. They may be a worker's, so they "
        "can't be accepted."
    )


async def _find_all(settings: Settings, partitions: Sequence[int]) -> dict[int, _Found]:
    async with kafka_errors(settings), connected(settings) as databases:
        count = (await topic_partitions(settings)).get(settings.topics.results)
        if count is None:
            raise CommandError(
                f"The topic {settings.topics.results!r} does not exist. Create it with 'waypost topics create', or "
                "see --topic-prefix."
            )
        for partition in partitions:
            if not 0 <= partition < count:
                raise CommandError(
                    f"The results topic has partitions 0 to {count - 1}, not {partition}.", USAGE
                )
        return {
            partition: await _find(settings, databases, partition) for partition in partitions or range(count)
        }


async def _find(settings: Settings, databases: Databases, partition: int) -> _Found:
    from aiokafka import TopicPartition

    from waypost_worker.kafka.result_origins import OriginReader
    from waypost_worker.postgres.rows import foreign_of, owners_of
    from waypost_worker.recovery.foreign_results import StoredPosition, find_foreign, first_to_read

    row = await databases.of(partition).fetchrow(
        query("results/position", settings.postgres_schema), partition
    )
    position = StoredPosition()
    if row is not None:
        accepted = foreign_of(row["foreign_results"].encode())
        position = StoredPosition(
            row["results_offset"], owners_of(row["producer_id"], row["former_producer_ids"]), accepted
        )
    where = TopicPartition(settings.topics.results, partition)
    reader = OriginReader(kafka_client(settings), where, "read_uncommitted")
    try:
        start, end = await reader.bounds()
        first = first_to_read(position, start)
        found = await find_foreign(reader.read_with_producers(first, end), position, start)
    finally:
        await reader.close()
    # Records that retention removed no longer need to be accepted.
    left = [record for record in position.accepted if record.offset >= start]
    return _Found(None if row is None else row["foreign_results"], left, found)


async def _accept(
    settings: Settings,
    found: dict[int, _Found],
    chosen: "dict[int, list[ForeignResult]]",
) -> None:
    from waypost_worker.postgres.rows import foreign_json

    async with kafka_errors(settings), connected(settings) as databases:
        count = (await topic_partitions(settings))[settings.topics.results]
        for partition, listed in chosen.items():
            accepted = [*found[partition].left, *(one.record for one in listed)]
            if len(accepted) > _MOST:
                raise CommandError(
                    f"Partition {partition} would have {len(accepted)} accepted records, and {_MOST} is the limit. "
                    "Nothing was changed in it. Wait until retention removes older ones, or use another topic prefix."
                )
            epoch = await databases.of(partition).fetchval(
                query("results/accept", settings.postgres_schema),
                partition,
                count,
                foreign_json(accepted).decode(),
                found[partition].stored,
            )
            if epoch is None:
                raise CommandError(
                    f"Somebody else has changed partition {partition} in the meantime. Nothing was changed; "
                    "try again."
                )
