"""One simulated deployment: a Kafka cluster, a Postgres, worker processes with owners, agents, a subscriber.

Knows how the parts are put together and how they are healed and brought to rest. What goes wrong meanwhile is
decided by the chaos; what must hold at the end, by the oracle.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import orjson
from tests.simulation.agents import EPOCH_MS, Agents
from tests.simulation.broker import CommandPartition, CommandRecord, Coordinator, ResultsPartition
from tests.simulation.clients import SimulatedClock, SimulatedCommandLog, SimulatedResultsLog, Topic
from tests.simulation.database import Database, SimulatedStore, Tables
from tests.simulation.loop import OUTSIDE, Process, SimulatedLoop
from tests.simulation.network import Server
from tests.simulation.plan import Plan
from tests.simulation.producer import Cluster
from tests.simulation.producers import Producers
from tests.simulation.publishing import Publishing
from tests.simulation.replaying import rebuild

from waypost.envelope import command_headers
from waypost.times import format_micros
from waypost_worker.partition import acquire as acquire_module
from waypost_worker.partition.acquire import Acquired
from waypost_worker.partition.encode import ACQUIRED
from waypost_worker.partition.observer import AppliedBatch
from waypost_worker.partition.owner import Limits, Owner, Ports, StuckError
from waypost_worker.partition.ports import OwnerError, ResultRecord
from waypost_worker.recovery.replay import Replayed

RESULTS_TOPIC = "sim.results"
TIMEOUT = 1.5  # request timeout of every client, seconds
PRODUCER_EXPIRY = 90.0  # producer.id.expiration; renewals come after 40 s, as 12 h stand to 24 h
LIMITS = {
    "renew_after": 40.0,
    "proof_valid": 6.0,
    "stuck_after": 4.0,
    "look_again_after": 2.0,
    "refused_wait": 2.0,
}
SETTLE_SECONDS = 90.0


@dataclass(slots=True)
class Running:
    """An owner at work in a process."""

    owner: Owner
    task: asyncio.Task[None]


@dataclass(slots=True)
class Host:
    """A worker process with its owners by partition. Its machine's clock began at ``booted``."""

    process: Process
    booted: float
    owners: dict[int, Running] = field(default_factory=dict)
    stopping: set[int] = field(default_factory=set)


class Observer:
    """Counts what owners tell, and writes it into the trace."""

    def __init__(self, world: "World", name: str) -> None:
        self._world = world
        self._name = name

    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        self._world.terms += 1
        self._world.reemitted += acquired.reemitted
        if self._world.tell:
            at = acquired.position
            self._world.tell(
                f"{self._name} owns p{partition}: epoch {at.epoch}, P {at.next_offset}, R {acquired.tail.highest},"
                f" results from {at.results_offset}, {acquired.reemitted} emitted again"
            )

    def applied(self, partition: int, batch: AppliedBatch) -> None:
        self._world.batches += 1

    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        pass

    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        if why is not None:
            kind = type(why).__name__
            self._world.ends[kind] = self._world.ends.get(kind, 0) + 1
        if self._world.tell:
            self._world.tell(f"{self._name} ends its term of p{partition}: {why!r}")


class World:
    """Everything of one seed."""

    def __init__(self, plan: Plan, trace: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.random = Random(plan.seed)
        self.loop = SimulatedLoop(Random(plan.seed + 1), plan.shuffle)
        self.tell: Callable[[str], None] | None = None
        if trace is not None:
            self.tell = lambda text: trace(f"{self.loop.time():9.4f}  {text}")
        self.kafka = Server("kafka", self.loop, Random(plan.seed + 2), TIMEOUT)
        self.postgres = Server("postgres", self.loop, Random(plan.seed + 3), TIMEOUT)
        self.kafka.latest = 2 * TIMEOUT
        self.kafka.tell = self.postgres.tell = self.tell
        self.database = Database(self.postgres)
        self.commands = [
            CommandPartition(Producers(PRODUCER_EXPIRY, self.loop.time)) for _ in range(plan.partitions)
        ]
        self.results = [ResultsPartition(PRODUCER_EXPIRY, self.loop.time) for _ in range(plan.partitions)]
        for partition, results in enumerate(self.results):
            results.watch = partial(self._check_applied, partition)
        self.topic = Topic(self.commands)
        self.coordinator = Coordinator(plan.transactional_expiry, plan.epochs, self.loop.time)
        cluster = Cluster(
            self.kafka, self.commands, self.coordinator, self._is_away, self.now_ms, plan.message_bytes
        )
        self.publishing = Publishing(self, cluster)
        self.hosts: list[Host] = []
        self.processes: list[Process] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.logs: list[SimulatedCommandLog] = []
        self.opened: list[SimulatedCommandLog | SimulatedResultsLog] = []
        self.seen: list[list[tuple[int, str]]] = [[] for _ in range(plan.partitions)]
        self.away_until = [0.0] * plan.partitions  # nothing is published before
        self.cursors = [0] * plan.partitions  # how far the subscriber has read
        self.deaths: list[str] = []  # owners that ended by an error nobody foresaw
        self.problems: list[str] = []
        self.rebuilt: dict[int, tuple[Replayed, Tables]] = {}
        self.refusable: set[int] = set()  # partitions that may, or must, end refused
        self.terms = self.batches = self.reemitted = self.published = 0
        self.ends: dict[str, int] = {}
        self.faults: dict[str, int] = {}
        self.originals: dict[int, list[CommandRecord]] = {}  # commands before a disaster
        self.refusals: dict[int, str] = {}  # what owners said at the end
        self.healed = False
        self.ends_at = plan.duration  # when the faults end
        self._settled = False
        self._in_transaction: set[int] = set()
        self._agents = [
            Agents(Random(plan.seed * 31 + p), p, plan.partitions, plan.sessions)
            for p in range(plan.partitions)
        ]

    # Worker processes.

    def boot(self, index: int) -> Host:
        """Start worker process ``index``, or start it anew after a crash."""
        process = Process(f"w{index}.{len(self.processes)}")
        self.processes.append(process)
        host = Host(process, self.random.random() * 1000)
        if index < len(self.hosts):
            self.hosts[index] = host
        else:
            self.hosts.append(host)
        self.say(f"{process.name} starts")
        return host

    def crash(self, host: Host) -> None:
        """SIGKILL: nothing of the process runs any more; what it sent is on its way."""
        host.process.dead = True
        host.owners.clear()
        self.say(f"{host.process.name} is killed")

    def own(self, host: Host, partition: int) -> None:
        """Let a process own a partition, besides whoever else does."""
        if partition in host.owners or host.process.dead:
            return
        plan = self.plan
        ports = Ports(
            make_log=lambda: self._log(partition),
            make_results=lambda: self._results_log(partition),
            store=SimulatedStore(self.database, partition),
            clock=SimulatedClock(self.loop, host.booted),
        )
        limits = Limits(
            batch_records=plan.batch_records,
            batch_bytes=plan.batch_bytes,
            cache_items=plan.cache_items,
            **LIMITS,
        )
        name = host.process.name
        random = Random(self.random.random())
        owner = Owner(partition, RESULTS_TOPIC, ports, Observer(self, name), limits, random)
        task = self.loop.start(host.process, self._supervised(host, partition, owner))
        host.owners[partition] = Running(owner, task)
        self.tasks.append(task)
        self.say(f"{name} is to own p{partition}")

    async def _supervised(self, host: Host, partition: int, owner: Owner) -> None:
        try:
            await owner.run()
        except StuckError:
            pass  # the service gives up the process; here the partition is owned anew
        except Exception as error:
            self.deaths.append(f"{host.process.name} p{partition}: {error!r}")
            self.say(f"{host.process.name} p{partition} died of {error!r}")
            if self.tell:
                import traceback

                self.tell(traceback.format_exc())
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
            self.say(f"{host.process.name} is to give p{partition} up")
            self.loop.call_soon(running.owner.stop, context=host.process.context)

    def _log(self, partition: int) -> SimulatedCommandLog:
        log = SimulatedCommandLog(self.kafka, self.topic, partition)
        self.logs.append(log)
        self.opened.append(log)
        return log

    def _results_log(self, partition: int) -> SimulatedResultsLog:
        log = SimulatedResultsLog(self.kafka, self.results[partition], self.coordinator, f"sim.{partition}")
        self.opened.append(log)
        return log

    def _check_applied(self, partition: int, record: ResultRecord) -> None:
        """Who sees a result must find its effect in Postgres."""
        if dict(record.headers).get("ce_type") == ACQUIRED or record.key == b"rogue":
            return
        offset = orjson.loads(record.value)["command"]["offset"]
        if offset >= self.database.applied.get(partition, 0):
            self.problems.append(f"result before its commit: p{partition}: of command {offset}")

    # Agents and subscribers.

    def now_ms(self) -> int:
        """The broker's clock."""
        return EPOCH_MS + int(self.loop.time() * 1000)

    def publish(self, partition: int) -> int | None:
        """An agent publishes its next command; the offset, or None if the partition is not there, or a publisher
        has accepted the command.
        """
        if self._is_away(partition):
            return None
        message = self._agents[partition].next(self.now_ms())
        if partition not in self._in_transaction and self.publishing.takes(message):
            self.published += 1
            return None
        key, value, headers = message
        skew = self.random.randrange(50) if self.random.random() < 0.05 else 0  # another leader's clock
        offset = self.commands[partition].append(self.now_ms() - skew, key, value, headers)
        self.published += 1
        if self.tell:
            self.tell(
                f"agent publishes p{partition} {offset}: {headers[3:4]} {key!r} {(value or b'')[:60]!r}"
            )
        return offset

    def _is_away(self, partition: int) -> bool:
        return self.loop.time() < self.away_until[partition]

    def send(self, partition: int, session_id: str, command_type: str, body: bytes) -> int:
        """Publish one command; the offset."""
        now = self.now_ms()
        headers = command_headers(
            f"sent-{self.published}", b"/test", command_type.encode(), format_micros(now * 1000).encode()
        )
        self.published += 1
        return self.commands[partition].append(now, session_id.encode(), body, headers)

    async def agents_at_work(self) -> None:
        """Publish the planned number of commands, spread over the planned time."""
        plan, random = self.plan, self.random
        for left in range(plan.commands, 0, -1):
            partition = random.randrange(plan.partitions)
            if random.random() < plan.transactions:
                await self._transaction(partition)
            else:
                for _ in range(random.choice((1, 1, 1, 4))):
                    self.publish(partition)
            remaining = self.ends_at * 0.9 - self.loop.time()
            await asyncio.sleep(max(0.0, remaining / left) * 2 * random.random())

    async def _transaction(self, partition: int) -> None:
        log = self.commands[partition]
        transaction = self.published
        log.open(transaction)
        self._in_transaction.add(partition)
        published = [self.publish(partition) for _ in range(self.random.randrange(1, 4))]
        self._in_transaction.discard(partition)
        offsets = [offset for offset in published if offset is not None]
        await asyncio.sleep(self.random.random() * 0.3)
        if log is not self.commands[partition] or transaction not in log.transactions:
            return
        if self.random.random() < 0.5:
            log.abort(transaction, offsets)
        else:
            log.commit(transaction)

    async def subscriber(self) -> None:
        """Reads the results as they come, with Kafka's default isolation, and notes every event id."""
        random = Random(self.plan.seed + 5)
        cursors = self.cursors
        while True:
            for partition, log in enumerate(self.results):
                cursors[partition] = self._look(log, cursors[partition], self.seen[partition])
            await asyncio.sleep(0.2 + random.random())

    def _look(self, log: ResultsPartition, cursor: int, seen: list[tuple[int, str]]) -> int:
        if not log.start <= cursor <= log.end:
            cursor = log.start
        for record in log.between(cursor, log.end):
            headers = dict(record.headers)
            if headers.get("ce_type") != ACQUIRED:
                seen.append((record.offset, headers.get("ce_id", b"").decode()))
        return log.end

    # From beginning to end.

    def run(self, chaos: Callable[["World"], Any] | None = None) -> None:
        """The whole life of this world; what went wrong on the way is in ``problems``."""
        outside = [self._outside(self.agents_at_work()), self._outside(self.subscriber())]
        with _emit_bytes(self.plan.emit_bytes), self.publishing.simulated_client():
            try:
                self._live(chaos, outside)
            finally:
                self._bury(outside)

    def _live(self, chaos: Callable[["World"], Any] | None, outside: list[asyncio.Task[Any]]) -> None:
        loop, plan = self.loop, self.plan
        for index in range(plan.processes):
            self.boot(index)
        for partition in range(plan.partitions):
            self.own(self.hosts[partition % plan.processes], partition)
        self.publishing.start()
        if chaos is not None:
            outside.append(self._outside(chaos(self)))
            if plan.publishers:
                outside.append(self._outside(self.publishing.chaos()))
        while loop.time() < self.ends_at:
            loop.run(lambda: False, self.ends_at)
        self._heal()
        outside.append(self._settle())
        for host in self.hosts:
            self.wake(host)  # the last sleepers do their worst
        loop.run(lambda: False, loop.time() + 8)
        outside.append(self._settle())
        self._stop()
        self.rebuilt = rebuild(self, RESULTS_TOPIC)

    def _outside(self, coroutine: Any) -> asyncio.Task[Any]:
        return self.loop.create_task(coroutine, context=OUTSIDE.copy())

    def _heal(self) -> None:
        """All faults end. One process keeps each partition, the others give it up. Sleepers may sleep on."""
        self.say("all faults heal")
        self.healed = True
        for server in (self.kafka, self.postgres):
            server.down = False
            server.weather = type(server.weather)()
        for log in self.logs:
            log.stuck = False
        self.publishing.heal()
        for partition in self.commands:
            partition.end_transactions()
        for index, host in enumerate(self.hosts):
            if host.process.dead:
                self.boot(index)
        awake = [host for host in self.hosts if not host.process.paused]
        if not awake or self.random.random() >= self.plan.late_zombies:
            for host in self.hosts:
                self.wake(host)
            awake = self.hosts
        for partition in range(self.plan.partitions):
            keeper = self.random.choice(awake)
            for host in awake:
                if host is not keeper:
                    self.disown(host, partition)
            keeper.stopping.discard(partition)
            self.own(keeper, partition)

    def wake(self, host: Host) -> None:
        """SIGCONT."""
        if host.process.paused and not host.process.dead:
            self.say(f"{host.process.name} goes on")
            self.loop.resume(host.process)

    def _settle(self) -> asyncio.Task[None]:
        self._settled = False
        watch = self._outside(self._watch())
        if not self.loop.run(lambda: self._settled, self.loop.time() + SETTLE_SECONDS):
            self.problems += [f"stuck: {text}" for text in self._unsettled()]
        return watch

    async def _watch(self) -> None:
        behind = self._unsettled()
        while behind:
            await asyncio.sleep(0.25)
            behind = self._unsettled()
        self._settled = True

    def _unsettled(self) -> list[str]:
        """Partitions that are behind, with how far; refused ones that may be refused are at rest."""
        behind = self.publishing.unsettled()
        for partition, log in enumerate(self.commands):
            if partition in self.refusable and self.refused(partition):
                continue
            last = log.records[-1].offset if log.records else -1
            tables = self.database.tables.get(partition)
            applied = -1 if tables is None else tables.next_offset - 1
            answered = self.last_answered(partition)
            # Answers to what a replaced log does not have: an owner that has looked refuses.
            unheard_of = partition in self.refusable and answered >= log.end
            if applied < last or answered < last or unheard_of:
                behind.append(f"p{partition}: commands up to {last}, applied {applied}, answered {answered}")
        return behind

    def refused(self, partition: int) -> str | None:
        """What an owner says of a partition that it must not process."""
        for host in self.hosts:
            running = host.owners.get(partition)
            if running is not None and running.owner.refused is not None:
                return running.owner.refused
        return None

    def last_answered(self, partition: int) -> int:
        """The command offset of the last result in the topic, or -1."""
        log = self.results[partition]
        for record in reversed(log.trimmed + log.records):
            if dict(record.headers).get("ce_type") != ACQUIRED and record.key != b"rogue":
                return int(orjson.loads(record.value)["command"]["offset"])
        return -1

    def _stop(self) -> None:
        """Drain everything."""
        loop = self.loop
        self.publishing.stop()
        for partition in range(self.plan.partitions):
            if (refusal := self.refused(partition)) is not None:
                self.refusals[partition] = refusal
        for host in self.hosts:
            for partition in list(host.owners):
                self.disown(host, partition)
            for partition in range(self.plan.partitions):
                host.stopping.add(partition)
        alive = [task for host in self.hosts for running in host.owners.values() for task in [running.task]]
        if not loop.run(lambda: all(task.done() for task in alive), loop.time() + 60):
            self.problems.append("stuck: an owner that was told to stop did not end within 60 s")
        loop.run(lambda: False, loop.time() + self.kafka.latest + 2)
        left = [log for log in self.opened if not (log.closed or log.process.dead)]
        if left:
            self.problems.append(f"leaked: {len(left)} logs were never closed")
        self.problems += self.publishing.problems()

    def _bury(self, outside: list[asyncio.Task[Any]]) -> None:
        self.loop.bury(self.processes, [*outside, *self.tasks, *self.publishing.all_tasks()])
        undone = [task for task in self.tasks if not task.done()]
        if undone:
            self.problems.append(f"leaked: {len(undone)} tasks do not end")
        self.problems += [f"event loop: {error}" for error in self.loop.errors]

    def say(self, text: str) -> None:
        """A line of the trace."""
        if self.tell:
            self.tell(text)


@contextmanager
def _emit_bytes(size: int) -> Iterator[None]:
    """Make owners emit in small pieces."""
    before = acquire_module.EMIT_BYTES
    acquire_module.EMIT_BYTES = size  # type: ignore[misc]
    try:
        yield
    finally:
        acquire_module.EMIT_BYTES = before  # type: ignore[misc]
