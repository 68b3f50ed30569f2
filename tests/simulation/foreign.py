"""Somebody else writes to the results topic, and an operator has workers pass over what is found there."""

import asyncio
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import orjson
from tests.simulation.broker import ResultsPartition
from tests.simulation.database import Tables
from tests.simulation.plan import LOSSY

from waypost.wire.event_types import EventType
from waypost_worker.partition.foreign import accepted_record
from waypost_worker.partition.ports import ResultRecord

if TYPE_CHECKING:
    from tests.simulation.world import World


def write_foreign(world: "World", partition: int, random: Random) -> None:
    """Append a few records that no owner wrote: junk, copies of results, or a result ahead of the last answer."""
    log = world.results[partition]
    for _ in range(random.choice((1, 1, 2, 4))):
        ways = [ResultRecord(b"rogue", b'{"who":"somebody else"}', [("ce_id", b"rogue")])]
        if log.records:
            ways.append(ResultRecord(*random.choice(log.records)[1:4]))
        if _is_known(world, partition):
            offset = world.commands[partition].end + random.choice((-3, -1, 0, 0, 1, 5))
            body = orjson.dumps({"command": {"id": "x", "offset": max(0, offset)}})
            ways.append(ResultRecord(b"forged", body, [("ce_type", EventType.CREATED.wire)]))
        log.write([random.choice(ways)])
    world.say(f"p{partition}: somebody else wrote results up to {log.end - 1}")


def _is_known(world: "World", partition: int) -> bool:
    """Whether a database that never forgets knows the owners of all results."""
    tables = world.database_of(partition).tables.get(partition)
    if tables is None or LOSSY & set(world.plan.faults):
        return False
    return tables.owners is not None


def with_accepted(tables: Tables, log: ResultsPartition) -> Tables:
    """The tables once an operator accepted all that is foreign in the log."""
    foreign = tuple(accepted_record(record) for record in log.records if record.producer_id < 0)
    return replace(tables.copy(), epoch=tables.epoch + 1, foreign_results=foreign)


async def operator(world: "World") -> None:
    """Accept what is foreign, sooner or later; again if Postgres forgot it."""
    random = Random(f"operator of {world.plan.seed}")
    while True:
        await asyncio.sleep(random.uniform(0.5, 6))
        for partition, log in enumerate(world.results):
            database = world.database_of(partition)
            tables = database.tables.get(partition)
            if database.read_only or tables is None or all(record.producer_id >= 0 for record in log.records):
                continue
            accepted = with_accepted(tables, log)
            if accepted.foreign_results != tables.foreign_results:
                world.say(f"p{partition}: an operator accepts {len(accepted.foreign_results)} records")
                database.put(partition, accepted)
