"""What goes wrong in a world while agents are at work.

Half of the crashes, freezes and failovers come at a random moment. The other half lie in ambush at the n-th
request from now, and strike when it is sent, when it lands, or when its answer is there: between any two steps
of an owner. All that waits is undone, or is done with, when the world heals.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random

from tests.simulation.broker import CommandPartition, ResultsPartition
from tests.simulation.database import Database
from tests.simulation.disasters import strike
from tests.simulation.fleet import Host
from tests.simulation.foreign import write_foreign
from tests.simulation.loop import OUTSIDE, Process
from tests.simulation.network import STAGES, Server, Weather
from tests.simulation.plan import LOSSY
from tests.simulation.world import World

from waypost_worker.partition.ports import RefusedError, UnavailableError

_AMBUSHED = (
    "crash",
    "pause",
    "long_pause",
    "leader_change",
    "postgres_cut",
    "failover",
    "race",
    "machine_pause",
    "long_machine_pause",
    "read_only",
    "epoch_given_twice",
)
_OF_A_DATABASE = (
    "postgres_weather",
    "postgres_outage",
    "postgres_cut",
    "failover",
    "restore",
    "split_brain",
    "read_only",
)


async def chaos(world: World) -> None:
    """Faults of the planned kinds, one after the other, until cancelled."""
    trouble = _Trouble(world)
    if world.plan.disaster is not None:
        at = world.plan.duration * (0.2 + 0.6 * trouble.random.random())
        world.loop.call_at(at, strike, world, world.plan.disaster, trouble.random, context=OUTSIDE)
    kinds = list(world.plan.faults)
    while kinds:
        await asyncio.sleep(trouble.random.expovariate(1 / world.plan.calm))
        kind = trouble.random.choice(kinds)
        if kind == "all_asleep":
            kinds.remove(kind)
            await asyncio.sleep(trouble.all_asleep())
        elif kind in _AMBUSHED and trouble.random.random() < 0.6:
            trouble.ambush(kind)
        else:
            trouble.make(kind, None, trouble.database())


class _Trouble:
    """Makes one fault of each kind."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = Random(world.plan.seed + 7)
        self._operators = Random(f"operators of {world.plan.seed}")
        self._which = Random(f"databases of {world.plan.seed}")

    def database(self) -> Database:
        """One of them, as the next to be hit."""
        return self._which.choice(self.world.databases)

    def ambush(self, kind: str) -> None:
        """Strike at one of the next requests."""
        database = self.database()
        server = self.random.choice((self.world.kafka, database.server))
        stage = self.random.choice(STAGES)
        server.lie_in_wait(
            self.random.randrange(1, 12), stage, lambda process: self.make(kind, process, database)
        )

    def make(self, kind: str, process: Process | None, database: Database) -> None:
        """One fault now, to ``process`` or ``database`` where it concerns one."""
        if self.world.healed:
            return
        self.world.faults[kind] = self.world.faults.get(kind, 0) + 1
        self.world.say(f"fault: {kind}")
        host = self._host(process)
        if kind in _OF_A_DATABASE:
            break_it: Callable[[Host, Database], None] = getattr(self, f"_{kind}")
            break_it(host, database)
        else:
            make: Callable[[Host], None] = getattr(self, f"_{kind}")
            make(host)

    def _host(self, process: Process | None) -> Host:
        hosts = self.world.fleet.hosts
        for host in hosts:
            if host.process is process:
                return host
        return self.random.choice(hosts)

    def _later(self, longest: float, action: Callable[[], None], at_least: float = 0.0) -> None:
        delay = at_least + longest * self.random.random()
        self.world.loop.call_later(delay, self._unless_healed, action, context=OUTSIDE)

    def _unless_healed(self, action: Callable[[], None]) -> None:
        if not self.world.healed:
            action()

    def _foreign_results(self, _: Host) -> None:
        write_foreign(self.world, self.random.randrange(self.world.plan.partitions), self.random)

    # Processes.

    def _crash(self, host: Host, away: float = 0.0) -> None:
        if host.process.dead:
            return
        owned = list(host.owners)
        self.world.fleet.crash(host)
        index = self.world.fleet.hosts.index(host)
        if not away and self.random.random() < 0.5:
            self._take_over(owned, host)

        def restart() -> None:
            if self.world.fleet.hosts[index] is host:
                reborn = self.world.fleet.boot(index)
                for partition in owned:
                    self.world.fleet.own(reborn, partition)

        self._later(5, restart, away)

    def _pause(self, host: Host, longest: float = 9.0) -> None:
        if host.process.dead or host.process.paused:
            return
        host.process.paused = True
        self.world.say(f"{host.process.name} freezes")
        self._take_over(list(host.owners), host)
        self._later(longest, lambda: self.world.fleet.wake(host))

    def _long_pause(self, host: Host) -> None:
        self._pause(host, 200.0)

    def _machine_pause(self, host: Host, longest: float = 9.0) -> None:
        """A hypervisor pauses the whole machine: its clocks stand still, and its wall clock is set right later."""
        if not host.process.dead and not host.process.paused:
            host.machine.stop()
        self._pause(host, longest)

    def _long_machine_pause(self, host: Host) -> None:
        self._machine_pause(host, 200.0)

    def _clock_set(self, host: Host) -> None:
        """Somebody sets the wall clock of a machine, wrong or right."""
        if not host.process.paused:
            host.machine.clock_ahead = self.random.choice((0.0, 0.0, -30.0, 30.0, -25 * 3600.0, 2 * 3600.0))

    def all_asleep(self) -> float:
        """Nobody is there for so long that brokers forget producers, and perhaps transactional ids."""
        world, random = self.world, self.random
        seconds = random.choice((100.0, 150.0, 700.0))
        if world.healed:
            return seconds
        world.faults["all_asleep"] = 1
        world.say(f"fault: all are away for {seconds:.0f} s")
        for host in world.fleet.hosts:
            if not host.process.dead and random.random() < 0.7:
                host.process.paused = True
            else:
                self._crash(host, seconds)
        world.ends_at += seconds

        def wake() -> None:
            for host in world.fleet.hosts:
                world.fleet.wake(host)

        world.loop.call_later(seconds, wake, context=OUTSIDE)
        return seconds

    def _take_over(self, partitions: list[int], without: Host) -> None:
        for partition in partitions:
            if self.random.random() < 0.8:
                others = [
                    host for host in self.world.fleet.hosts if host is not without and not host.process.dead
                ]
                if others:
                    host = self.random.choice(others)
                    self._later(3, partial(self.world.fleet.own, host, partition))

    def _race(self, host: Host) -> None:
        """One more owner of a partition, for a while."""
        partition = self.random.randrange(self.world.plan.partitions)
        self.world.fleet.own(host, partition)
        self._later(10, lambda: self._disown_if_others(host, partition))

    def _disown_if_others(self, host: Host, partition: int) -> None:
        if any(partition in other.owners for other in self.world.fleet.hosts if other is not host):
            self.world.fleet.disown(host, partition)

    def _handover(self, host: Host) -> None:
        """A rebalance: perhaps the new owner starts before the old one ends."""
        partition = self.random.randrange(self.world.plan.partitions)
        for old in self.world.fleet.hosts:
            if old is not host:
                self._later(0.5, partial(self.world.fleet.disown, old, partition))
        self._later(0.5, lambda: self.world.fleet.own(host, partition))

    def _stuck(self, host: Host) -> None:
        """A consumer that gives nothing any more."""
        logs = [log for log in self.world.fleet.logs if not log.closed]
        if logs:
            self.random.choice(logs).stuck = True

    # Servers.

    def _kafka_weather(self, host: Host) -> None:
        self._storm(self.world.kafka)

    def _postgres_weather(self, host: Host, database: Database) -> None:
        self._storm(database.server)

    def _storm(self, server: Server) -> None:
        random = self.random
        weather = Weather()
        for mishap in ("refused", "lost", "unheard", "reset", "late", "twice", "slow", "torn"):
            if random.random() < 0.5:
                setattr(weather, mishap, random.choice((0.02, 0.1, 0.25)))
        if server is not self.world.kafka:
            weather.twice = 0.0  # no client of Postgres repeats a statement by itself
        server.weather = weather
        self._later(6, lambda: setattr(server, "weather", Weather()))

    def _kafka_outage(self, host: Host) -> None:
        self._outage(self.world.kafka, 8)

    def _postgres_outage(self, host: Host, database: Database) -> None:
        self._outage(database.server, 8)

    def _outage(self, server: Server, longest: float) -> None:
        server.down = True
        self._later(longest, lambda: setattr(server, "down", False))

    def _appends_refused(self, host: Host) -> None:
        """Too few replicas are in sync, or the topic takes no such records: reading goes on meanwhile."""
        log = self.random.choice(self.world.results)
        log.refusing = self.random.choice(
            (
                UnavailableError("not enough replicas are in sync"),
                RefusedError("the topic takes no such records"),
            )
        )
        self._later(5, lambda: setattr(log, "refusing", None))

    def _former_leader(self, host: Host) -> None:
        """One process goes on to read from a broker that leads no more, and does not know it."""
        process = host.process
        logs: list[CommandPartition | ResultsPartition] = [*self.world.commands, *self.world.results]
        some = self.random.sample(logs, self.random.randint(1, len(logs)))
        for log in some:
            log.lag(process)

        def find_the_leader() -> None:
            for log in some:
                log.catch_up(process)

        self._later(12, find_the_leader)

    def _leader_change(self, host: Host) -> None:
        self.world.kafka.break_connections()
        self._outage(self.world.kafka, 0.5)

    def _poison(self, host: Host) -> None:
        """A command that all workers have a bug for, perhaps until they are replaced by a version without it."""
        world = self.world
        world.poison.next_of(self.random.randrange(world.plan.partitions))

        def upgrade() -> None:
            world.poison.fix()
            for index, old in enumerate(list(world.fleet.hosts)):
                if not old.process.dead and self.random.random() < 0.5:
                    owned = list(old.owners)
                    world.fleet.crash(old)
                    new = world.fleet.boot(index)
                    for partition in owned:
                        world.fleet.own(new, partition)

        if self.random.random() < 0.5:
            self._later(20, upgrade)

        def skip() -> None:
            for partition in range(world.plan.partitions):
                if self._operators.random() < 0.5:
                    world.traffic.skip(partition)

        for seconds in (5, 10, 15, 25):
            self._later(seconds, skip)

    def _epoch_given_twice(self, host: Host) -> None:
        """A transaction coordinator loses its last write, of each partition's transactional id."""
        for partition in range(self.world.plan.partitions):
            self.world.coordinator.lose_the_last(self.world.fleet.transactional_id(partition))

    def _read_only(self, host: Host, database: Database) -> None:
        database.read_only = True
        self._later(6, lambda: setattr(database, "read_only", False))

    def _postgres_cut(self, host: Host, database: Database) -> None:
        database.server.break_connections()

    def _failover(self, host: Host, database: Database) -> None:
        self._lose(database, self.random.randrange(1, 7))

    def _restore(self, host: Host, database: Database) -> None:
        self._lose(database, self.random.choice((10, 30, 1000)))

    def _split_brain(self, host: Host, database: Database) -> None:
        """A failover, and the former primary goes on to serve some processes as if nothing had happened."""
        world = self.world
        behind = [one.process for one in world.fleet.hosts if one is host or self.random.random() < 0.2]
        lost = database.split(behind, self.random.randrange(7))
        names = ", ".join(process.name for process in behind)
        name = database.server.name
        world.say(f"{name} failed over and lost {lost} transactions; the former primary still serves {names}")
        self._later(8, database.join)

    def _lose(self, database: Database, most: int) -> None:
        lost = database.fail_over(most)
        self.world.say(f"{database.server.name} lost its last {lost} transactions")
        self._outage(database.server, 1)

    # Retention that does its work without harm.

    def _trim_answered(self, host: Host) -> None:
        world = self.world
        if LOSSY & set(world.plan.faults):
            return  # what was answered may have to be answered again
        partition = self.random.randrange(world.plan.partitions)
        tables = world.database_of(partition).tables.get(partition)
        if tables is None or partition in world.refusable:
            return
        needed = min((entry.first_offset for entry in tables.outbox.values()), default=tables.next_offset)
        log, results = world.commands[partition], world.results[partition]
        log.trim(self.random.randint(log.start, needed))
        seen = min(tables.results_offset, world.traffic.cursors[partition])
        results.trim(self.random.randint(results.start, max(results.start, seen)))
        world.say(f"p{partition}: commands begin at {log.start}, results at {results.start}")
