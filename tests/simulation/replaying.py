"""A world's partitions rebuilt by the real replay once it has come to rest, under faults of its own.

Into empty databases, or ones that a copy of an earlier moment was restored into, from the same logs, the last results
of which may be missing; with a copy, retention has removed what it makes unnecessary. The first process is killed on
the way, a second one goes on where it was. An owner then takes the rebuilt partition and emits what is owed.
"""

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation.broker import ResultsPartition
from tests.simulation.clients import Machine, SimulatedClock, SimulatedCommandLog, SimulatedResultsLog
from tests.simulation.copies import copy_to_begin_with, retain, shortened
from tests.simulation.database import Database, SimulatedStore, Tables
from tests.simulation.fleet import LIMITS
from tests.simulation.foreign import with_accepted
from tests.simulation.loop import Process
from tests.simulation.network import Server, Weather
from tests.simulation.replies import last_answered

from waypost.shards import shard_of
from waypost_worker.partition.owner import Owner
from waypost_worker.partition.ports import FencedError, Ports
from waypost_worker.recovery.replay.partition_replay import (
    PartitionReplay,
    Replayed,
    ReplayLimits,
    ReplayPorts,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

_FOUL = Weather(refused=0.05, lost=0.02, unheard=0.05, reset=0.05, slow=0.1)
_FOUL_SECONDS = 20.0
_PATIENCE = 600.0


@dataclass(slots=True)
class Rebuilt:
    """A partition after its replay: the tables, and the results topic that it had.

    ``copy`` is what it began with, None of an empty database. The last command that the topic answered was
    ``answered`` at first; ``results`` is the topic once an owner has finished what was owed.
    """

    tables: Tables
    copy: Tables | None
    answered: int
    results: ResultsPartition


class _Untold:
    def advanced(self, partition: int, commands: int, next_offset: int) -> None:
        pass

    def acquired(self, *_: object) -> None:
        pass

    applied = emitted = ended = acquired


def rebuild(world: "World", results_topic: str) -> dict[int, Rebuilt]:
    """What came of each partition; what went wrong is in the world's problems."""
    if world.plan.disaster is not None or world.refusals:
        return {}
    partitions = range(world.plan.partitions)
    random = Random(world.plan.seed)
    databases = [
        Database(Server("rebuilt postgres", world.loop, each, timeout=world.kafka.timeout))
        for each in (
            random,
            *(Random(f"rebuilt {shard} of {world.plan.seed}") for shard in range(1, world.plan.shards)),
        )
    ]
    servers = [world.kafka, *(database.server for database in databases)]
    for server in servers:
        server.weather = _FOUL

    def database_of(partition: int) -> Database:
        return databases[shard_of(partition, len(databases))]

    copies, topics, answered = {}, {}, {}
    others = Random(f"copies of {world.plan.seed}")
    for partition in partitions:
        copies[partition] = copy = copy_to_begin_with(world, partition, others)
        topics[partition] = topic = shortened(world, partition, copy, random)
        answered[partition] = last_answered(topic)
        if any(record.producer_id < 0 for record in topic.records):
            begun = Tables(world.plan.partitions) if copy is None else copy
            database_of(partition).put(partition, with_accepted(begun, topic))
        elif copy is not None:
            database_of(partition).put(partition, copy)
        if copy is not None:
            retain(world.commands[partition], topic, copy, others)
            world.say(
                f"p{partition} is restored up to {copy.next_offset}: commands begin at "
                f"{world.commands[partition].start}, results at {topic.start}"
            )

    def replay(partition: int) -> PartitionReplay:
        ports = ReplayPorts(
            make_log=lambda: SimulatedCommandLog(world.kafka, world.topic, partition),
            make_results=lambda: SimulatedResultsLog(
                world.kafka, topics[partition], world.coordinator, f"replay.{partition}"
            ),
            store=SimulatedStore(database_of(partition), partition),
            sleep=asyncio.sleep,
        )
        end = world.commands[partition].end
        limits = ReplayLimits(batch_records=random.choice((1, 10, 1000)), patience=_PATIENCE)
        return PartitionReplay(partition, results_topic, ports, end, _Untold(), limits)

    killed, second = Process("replay.0"), Process("replay.1")
    world.processes += [killed, second]
    world.tasks += [world.loop.start(killed, replay(partition).run()) for partition in partitions]
    world.loop.run(lambda: False, world.loop.time() + 2 * random.random())
    killed.dead = True

    async def again(partition: int) -> Replayed:
        while True:
            try:
                return await replay(partition).run()
            except FencedError:
                pass  # what the killed one sent last landed late; a person would start it again

    tasks: dict[int, asyncio.Task[Any]] = {
        partition: world.loop.start(second, again(partition)) for partition in partitions
    }
    world.tasks += tasks.values()
    for seconds in (_FOUL_SECONDS, _PATIENCE):
        world.loop.run(lambda: all(task.done() for task in tasks.values()), world.loop.time() + seconds)
        for server in servers:
            server.weather = Weather()
    outcomes = {}
    for partition, task in tasks.items():
        if not task.done():
            world.problems.append(f"replay stuck: p{partition}")
        elif (error := task.exception()) is not None:
            world.problems.append(f"replay failed: p{partition}: {error!r}")
        else:
            tables = database_of(partition).tables.get(partition) or Tables(0)
            outcomes[partition] = Rebuilt(tables, copies[partition], answered[partition], topics[partition])
    for partition, rebuilt in outcomes.items():
        _finish(world, database_of(partition), partition, results_topic, rebuilt.results)
    for database in databases:
        world.problems += [f"replay violated the schema: {text}" for text in database.violations]
    return outcomes


def _finish(
    world: "World", database: Database, partition: int, results_topic: str, results: ResultsPartition
) -> None:
    """An owner works on the rebuilt partition until all is answered."""
    log = world.commands[partition]
    if not log.records:
        return
    process = Process(f"heir of the replay of {partition}")
    world.processes.append(process)
    ports = Ports(
        make_log=lambda: SimulatedCommandLog(world.kafka, world.topic, partition),
        make_results=lambda: SimulatedResultsLog(
            world.kafka, results, world.coordinator, f"heir.{partition}"
        ),
        store=SimulatedStore(database, partition),
        clock=SimulatedClock(Machine(world.loop)),
    )
    owner = Owner(partition, results_topic, ports, _Untold(), LIMITS, Random(1))
    task = world.loop.start(process, owner.run())
    world.tasks.append(task)
    last = log.records[-1].offset
    world.loop.run(lambda: last_answered(results) >= last, world.loop.time() + _PATIENCE)
    world.loop.call_soon(owner.stop, context=process.context)
    if not world.loop.run(task.done, world.loop.time() + _PATIENCE):
        world.problems.append(f"stuck: the owner of p{partition} after its replay")
    elif (error := task.exception()) is not None:
        world.problems.append(f"the owner of p{partition} died after its replay: {error!r}")
