"""Worker processes with their owners: they start, die, take partitions over and give them up.

Knows how an owner is put together on simulated ports, and nothing of when and why.
"""

import asyncio
import traceback
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Final

from tests.simulation.clients import (
    GroupedAppends,
    Machine,
    SimulatedClock,
    SimulatedCommandLog,
    SimulatedResultsLog,
)
from tests.simulation.database import Database, SimulatedStore
from tests.simulation.group_commit import Groups
from tests.simulation.loop import Process

from waypost_worker.partition.observer import AppliedBatch
from waypost_worker.partition.owner import Owner
from waypost_worker.partition.ownership import Acquired, Limits
from waypost_worker.partition.ports import OwnerError, Ports, StuckError

if TYPE_CHECKING:
    from tests.simulation.world import World

RESULTS_TOPIC: Final = "sim.results"
LIMITS: Final = Limits(
    renew_after=40.0,
    proof_lifetime=6.0,
    stuck_after=4.0,
    look_again_after=2.0,
    look_at_fence_after=5.0,
    refused_wait=2.0,
)


@dataclass(slots=True)
class Running:
    """An owner at work in a process."""

    owner: Owner
    task: asyncio.Task[None]


@dataclass(slots=True)
class Host:
    """A worker process with its owners by partition, on a machine of its own."""

    process: Process
    machine: Machine
    accepting: bool  # whether it was started with accept_trimmed_results
    appends: GroupedAppends
    groups: dict[Database, Groups] = field(default_factory=dict)
    owners: dict[int, Running] = field(default_factory=dict)
    stopping: set[int] = field(default_factory=set)


class Observer:
    """Counts what owners tell, and writes it into the trace."""

    def __init__(self, world: "World", name: str) -> None:
        self._world = world
        self._name = name

    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        self._world.fleet.terms += 1
        self._world.fleet.reemitted += acquired.reemitted
        if self._world.tell:
            at = acquired.position
            self._world.tell(
                f"{self._name} owns p{partition}: epoch {at.epoch}, P {at.next_offset}, R {acquired.tail.highest},"
                f" results from {at.results_offset}, {acquired.reemitted} emitted again"
            )

    def applied(self, partition: int, batch: AppliedBatch) -> None:
        self._world.fleet.batches += 1

    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        pass

    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        fleet = self._world.fleet
        if why is not None:
            kind = type(why).__name__
            fleet.ends[kind] = fleet.ends.get(kind, 0) + 1
        self._world.poison.judge(
            partition, why, lambda said: fleet.deaths.append(f"{self._name} p{partition}: {said}")
        )
        if self._world.tell:
            self._world.tell(f"{self._name} ends its term of p{partition}: {why!r}")


class Fleet:
    """All worker processes of a world, and what their owners came to."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.hosts: list[Host] = []
        self.logs: list[SimulatedCommandLog] = []
        self.opened: list[SimulatedCommandLog | SimulatedResultsLog] = []
        self.deaths: list[str] = []  # unexpected errors of owners
        self.terms = self.batches = self.reemitted = 0
        self.ends: dict[str, int] = {}
        self.accepting = False  # whether workers are started with accept_trimmed_results

    def boot(self, index: int) -> Host:
        """Start worker process ``index``, or start it anew after a crash."""
        process = Process(f"w{index}.{len(self._world.processes)}")
        self._world.processes.append(process)
        machine = Machine(self._world.loop, self._world.random.random() * 1000)
        openings = 0.0 if self._world.healed else self._world.plan.openings
        appends = GroupedAppends(self._world.kafka, machine, openings)
        host = Host(process, machine, self.accepting, appends)
        if index < len(self.hosts):
            self.hosts[index] = host
        else:
            self.hosts.append(host)
        self._world.say(f"{process.name} starts")
        return host

    def hurry(self) -> None:
        """Let commits and appends no longer wait for connections."""
        for host in self.hosts:
            host.appends.openings = 0.0
            for groups in host.groups.values():
                groups.hurry()

    def crash(self, host: Host) -> None:
        """SIGKILL: nothing of the process runs any more; what it sent is on its way."""
        host.process.dead = True
        host.owners.clear()
        self._world.say(f"{host.process.name} is killed")

    def own(self, host: Host, partition: int) -> None:
        """Let a process own a partition, besides whoever else does."""
        if partition in host.owners or host.process.dead:
            return
        plan = self._world.plan
        ports = Ports(
            make_log=lambda: self._log(partition),
            make_results=lambda: self._results_log(partition, host.appends),
            store=self._store(host, partition),
            clock=SimulatedClock(host.machine),
        )
        limits = replace(
            LIMITS,
            batch_records=plan.batch_records,
            batch_bytes=plan.batch_bytes,
            accept_trimmed_results=host.accepting,
        )
        name = host.process.name
        random = Random(self._world.random.random())
        rooms = Random(f"rooms of {plan.seed} {name} {partition}")
        owner = Owner(
            partition,
            RESULTS_TOPIC,
            ports,
            Observer(self._world, name),
            limits,
            random,
            lambda: rooms.choice((1, plan.cache_items)),  # as other owners of the process come and go
        )
        task = self._world.loop.start(host.process, self._supervised(host, partition, owner))
        host.owners[partition] = Running(owner, task)
        self._world.tasks.append(task)
        self._world.say(f"{name} is to own p{partition}")

    async def _supervised(self, host: Host, partition: int, owner: Owner) -> None:
        try:
            await owner.run()
        except StuckError:
            pass  # the service gives up the process; here the partition is owned anew
        except Exception as error:
            self.deaths.append(f"{host.process.name} p{partition}: {error!r}")
            self._world.say(f"{host.process.name} p{partition} died of {error!r}")
            if self._world.tell:
                self._world.tell(traceback.format_exc())
        host.owners.pop(partition, None)
        if partition in host.stopping:
            host.stopping.discard(partition)
        else:
            await asyncio.sleep(1)
            self.own(host, partition)

    def disown(self, host: Host, partition: int) -> None:
        """Tell an owner to drain and end."""
        running = host.owners.get(partition)
        if running is not None and partition not in host.stopping:
            host.stopping.add(partition)
            self._world.say(f"{host.process.name} is to give p{partition} up")
            self._world.loop.call_soon(running.owner.stop, context=host.process.context)

    def wake(self, host: Host) -> None:
        """SIGCONT."""
        if host.process.paused and not host.process.dead:
            self._world.say(f"{host.process.name} goes on")
            host.machine.resume()
            self._world.loop.resume(host.process)

    def refused(self, partition: int) -> str | None:
        """What an owner says of a partition that it must not process."""
        for host in self.hosts:
            running = host.owners.get(partition)
            if running is not None and running.owner.refused is not None:
                return running.owner.refused
        return None

    def read_up_to(self, partition: int) -> int:
        """How far its owners say that a partition is read and applied."""
        owners = [host.owners[partition].owner for host in self.hosts if partition in host.owners]
        return max((owner.progress.position for owner in owners if owner.progress is not None), default=0)

    # What owners are made of.

    def _store(self, host: Host, partition: int) -> SimulatedStore:
        plan, database = self._world.plan, self._world.database_of(partition)
        if (groups := host.groups.get(database)) is None:
            random = Random(f"groups of {plan.seed} {host.process.name} {database.server.name}")
            wait = 0.0 if self._world.healed else plan.commit_wait
            groups = host.groups[database] = Groups.of(database, wait, plan.rolled_back, random)
        return SimulatedStore(database, partition, groups)

    def transactional_id(self, partition: int) -> str:
        return f"sim.{partition}"

    def _log(self, partition: int) -> SimulatedCommandLog:
        log = SimulatedCommandLog(self._world.kafka, self._world.topic, partition)
        self.logs.append(log)
        self.opened.append(log)
        return log

    def _results_log(self, partition: int, appends: GroupedAppends) -> SimulatedResultsLog:
        world = self._world
        log = SimulatedResultsLog(
            world.kafka,
            world.results[partition],
            world.coordinator,
            self.transactional_id(partition),
            appends,
        )
        self.opened.append(log)
        return log
