"""A world's partitions rebuilt by the real replay once it has come to rest, under faults of its own.

Into an empty database, from the same logs. The first process is killed on the way, a second one goes on where it was.
"""

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation.clients import SimulatedCommandLog, SimulatedResultsLog
from tests.simulation.database import Database, SimulatedStore, Tables
from tests.simulation.loop import Process
from tests.simulation.network import Server, Weather

from waypost_worker.partition.ports import FencedError
from waypost_worker.recovery.replay import PartitionReplay, Replayed, ReplayLimits, ReplayPorts

if TYPE_CHECKING:
    from tests.simulation.world import World

_FOUL = Weather(refused=0.05, lost=0.02, unheard=0.05, reset=0.05, slow=0.1)
_FOUL_SECONDS = 20.0
_PATIENCE = 600.0


class _Untold:
    def advanced(self, partition: int, commands: int, next_offset: int) -> None:
        pass


def rebuild(world: "World", results_topic: str) -> dict[int, tuple[Replayed, Tables]]:
    """What came of each partition whose logs are whole; what went wrong is in the world's problems."""
    whole = [
        partition
        for partition in range(world.plan.partitions)
        if world.commands[partition].start == 0 and world.results[partition].start == 0
    ]
    if world.plan.disaster is not None or world.refusals or not whole:
        return {}
    random = Random(world.plan.seed)
    server = Server("rebuilt postgres", world.loop, random, timeout=world.postgres.timeout)
    server.weather = _FOUL
    world.kafka.weather = _FOUL
    database = Database(server)

    def replay(partition: int) -> PartitionReplay:
        ports = ReplayPorts(
            make_log=lambda: SimulatedCommandLog(world.kafka, world.topic, partition),
            make_results=lambda: SimulatedResultsLog(
                world.kafka, world.results[partition], world.coordinator, f"replay.{partition}"
            ),
            store=SimulatedStore(database, partition),
            sleep=asyncio.sleep,
        )
        end = world.commands[partition].end
        limits = ReplayLimits(batch_records=random.choice((1, 10, 1000)), patience=_PATIENCE)
        return PartitionReplay(partition, results_topic, ports, end, _Untold(), limits)

    killed, second = Process("replay.0"), Process("replay.1")
    world.processes += [killed, second]
    world.tasks += [world.loop.start(killed, replay(partition).run()) for partition in whole]
    world.loop.run(lambda: False, world.loop.time() + 2 * random.random())
    killed.dead = True

    async def again(partition: int) -> Replayed:
        while True:
            try:
                return await replay(partition).run()
            except FencedError:
                pass  # what the killed one sent last landed late; a person would start it again

    tasks: dict[int, asyncio.Task[Any]] = {
        partition: world.loop.start(second, again(partition)) for partition in whole
    }
    world.tasks += tasks.values()
    for seconds in (_FOUL_SECONDS, _PATIENCE):
        world.loop.run(lambda: all(task.done() for task in tasks.values()), world.loop.time() + seconds)
        server.weather = world.kafka.weather = Weather()
    outcomes = {}
    for partition, task in tasks.items():
        if not task.done():
            world.problems.append(f"replay stuck: p{partition}")
        elif (error := task.exception()) is not None:
            world.problems.append(f"replay failed: p{partition}: {error!r}")
        else:
            outcomes[partition] = (task.result(), database.tables.get(partition) or Tables(0))
    world.problems += [f"replay violated the schema: {text}" for text in database.violations]
    return outcomes
