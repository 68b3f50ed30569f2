"""One simulated deployment: a Kafka cluster, a Postgres or several, worker processes with owners, agents, a subscriber.

Knows how the parts are put together and how they are healed and brought to rest. The processes are those of the
fleet, what goes in and out is the traffic. What goes wrong meanwhile is decided by the chaos; what must hold at the
end, by the oracle.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

import orjson
from tests.simulation import removed_early
from tests.simulation.agents import EPOCH_MS
from tests.simulation.broker import CommandPartition, CommandRecord, Coordinator, ResultsPartition
from tests.simulation.clients import Topic
from tests.simulation.database import Database
from tests.simulation.fleet import RESULTS_TOPIC, Fleet, Host
from tests.simulation.foreign import operator
from tests.simulation.loop import OUTSIDE, Process, SimulatedLoop
from tests.simulation.network import Server
from tests.simulation.plan import WorldPlan
from tests.simulation.poison import Poison
from tests.simulation.producer import Cluster
from tests.simulation.producers import Producers
from tests.simulation.publishing import Publishing
from tests.simulation.replaying import Rebuilt, rebuild
from tests.simulation.replies import last_answered
from tests.simulation.traffic import Traffic
from tests.simulation.verifying import verify_at_rest, verify_now_and_then

from waypost.shards import shard_of
from waypost.wire.event_types import EventType
from waypost_worker.partition import emitter
from waypost_worker.partition.ports import ResultRecord

TIMEOUT = 1.5  # request timeout of every client, seconds
PRODUCER_EXPIRY = 90.0  # producer.id.expiration; renewals come after 40 s, as 12 h stand to 24 h
SETTLE_SECONDS = 90.0


class World:
    """Everything of one seed."""

    def __init__(self, plan: WorldPlan, trace: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.random = Random(plan.seed)
        # Only what asyncio asks for without sockets is there.
        self.loop = SimulatedLoop(Random(plan.seed + 1), plan.shuffle)  # type: ignore[abstract]
        self.tell: Callable[[str], None] | None = None
        if trace is not None:
            self.tell = lambda text: trace(f"{self.loop.time():9.4f}  {text}")
        self.kafka = Server("kafka", self.loop, Random(plan.seed + 2), TIMEOUT)
        self.kafka.latest = 2 * TIMEOUT
        self.databases = [Database(self._postgres(shard)) for shard in range(plan.shards)]
        for server in self.servers:
            server.tell = self.tell
        self.commands = [
            CommandPartition(Producers(PRODUCER_EXPIRY, self.loop.time)) for _ in range(plan.partitions)
        ]
        self.results = [ResultsPartition(PRODUCER_EXPIRY, self.loop.time) for _ in range(plan.partitions)]
        for partition, results in enumerate(self.results):
            results.watch = partial(self._check_applied, partition)
            results.most_bytes = plan.emit_bytes
        self.topic = Topic(self.commands)
        self.topic.generous = True
        self.topic.has_ids = plan.topic_ids
        self.coordinator = Coordinator(plan.transactional_expiry, plan.epochs, self.loop.time)
        self.fleet = Fleet(self)
        self.poison = Poison(self)
        self.traffic = Traffic(self)
        cluster = Cluster(
            self.kafka, self.commands, self.coordinator, self.traffic.is_away, self.now_ms, plan.message_bytes
        )
        self.publishing = Publishing(self, cluster)
        self.processes: list[Process] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.problems: list[str] = []
        self.rebuilt: dict[int, Rebuilt] = {}
        self.refusable: set[int] = set()  # partitions that may, or must, end refused
        self.faults: dict[str, int] = {}
        self.originals: dict[int, list[CommandRecord]] = {}  # commands before a disaster
        self.removed_early: dict[int, range] = {}  # results that retention removed before they were looked at
        self.refusals: dict[int, str] = {}  # what owners said at the end
        self.healed = self.stopping = False
        self.ends_at = plan.duration  # when the faults end
        self._settled = False
        self._keepers: dict[int, Host] = {}

    def _postgres(self, shard: int) -> Server:
        seed = self.plan.seed
        name, random = "postgres", Random(seed + 3)
        if self.plan.shards > 1:
            name = f"postgres {shard}"
        if shard > 0:  # apart, so that the first is what an only one of this seed was
            random = Random(f"{name} of {seed}")
        return Server(name, self.loop, random, TIMEOUT)

    @property
    def servers(self) -> list[Server]:
        """Kafka, and each Postgres."""
        return [self.kafka, *(database.server for database in self.databases)]

    def database_of(self, partition: int) -> Database:
        """The one that holds a partition."""
        return self.databases[shard_of(partition, self.plan.shards)]

    def _check_applied(self, partition: int, record: ResultRecord) -> None:
        """Who sees a result must find its effect in Postgres."""
        if dict(record.headers).get("ce_type") == EventType.ACQUIRED.wire:
            return
        offset = orjson.loads(record.value)["command"]["offset"]
        if offset >= self.database_of(partition).applied.get(partition, 0):
            self.problems.append(f"result before its commit: p{partition}: of command {offset}")

    def now_ms(self) -> int:
        """The broker's clock."""
        return EPOCH_MS + int(self.loop.time() * 1000)

    # From beginning to end.

    def run(self, chaos: Callable[["World"], Any] | None = None) -> None:
        """The whole life of this world; what went wrong on the way is in ``problems``."""
        outside = [self._outside(self.traffic.agents_at_work()), self._outside(self.traffic.subscriber())]
        with _emit_bytes(self.plan.emit_bytes), self.publishing.simulated_client(), self.poison.at_work():
            try:
                self._live(chaos, outside)
            finally:
                self._bury(outside)

    def _live(self, chaos: Callable[["World"], Any] | None, outside: list[asyncio.Task[Any]]) -> None:
        loop, plan = self.loop, self.plan
        for index in range(plan.processes):
            self.fleet.boot(index)
        for partition in range(plan.partitions):
            self.fleet.own(self.fleet.hosts[partition % plan.processes], partition)
        self.publishing.start()
        if chaos is not None:
            outside.append(self._outside(chaos(self)))
            outside.append(self._outside(verify_now_and_then(self)))
            if plan.disaster == removed_early.RESULTS:
                outside.append(self._outside(removed_early.operator(self)))
            if "foreign_results" in plan.faults:
                outside.append(self._outside(operator(self)))
            if plan.publishers:
                outside.append(self._outside(self.publishing.chaos()))
        while loop.time() < self.ends_at:
            loop.run(lambda: False, self.ends_at)
        self._heal()
        outside.append(self._settle())
        for host in self.fleet.hosts:
            self.fleet.wake(host)  # the last sleepers do their worst
        loop.run(lambda: False, loop.time() + 8)
        self._part()
        outside.append(self._settle())
        self._stop()
        verify_at_rest(self)
        self.rebuilt = rebuild(self, RESULTS_TOPIC)

    def _outside(self, coroutine: Any) -> asyncio.Task[Any]:
        return self.loop.create_task(coroutine, context=OUTSIDE.copy())

    def _heal(self) -> None:
        """All faults end. One process keeps each partition, the others give it up. Sleepers may sleep on."""
        self.say("all faults heal")
        self.healed = True
        for database in self.databases:
            database.join()
            database.read_only = False
        for results in self.results:
            results.refusing = None
        partitions: list[CommandPartition | ResultsPartition] = [*self.commands, *self.results]
        for log in partitions:
            for process in self.processes:
                log.catch_up(process)
        for server in self.servers:
            server.down = False
            server.weather = type(server.weather)()
        for client in self.fleet.logs:
            client.stuck = False
        # Batches of one command that each wait half a second would take longer than the world waits for them.
        self.fleet.hurry()
        self.publishing.heal()
        self.poison.fix()
        for commands in self.commands:
            commands.end_transactions()
        for index, host in enumerate(self.fleet.hosts):
            if host.process.dead:
                self.fleet.boot(index)
        awake = [host for host in self.fleet.hosts if not host.process.paused]
        if not awake or self.random.random() >= self.plan.late_zombies:
            for host in self.fleet.hosts:
                self.fleet.wake(host)
            awake = self.fleet.hosts
        for partition in range(self.plan.partitions):
            keeper = self._keepers[partition] = self.random.choice(awake)
            for host in awake:
                if host is not keeper:
                    self.fleet.disown(host, partition)
            keeper.stopping.discard(partition)
            self.fleet.own(keeper, partition)

    def _part(self) -> None:
        """Sleepers that went on give up what others keep: with a new producer id each time, owners fight for ever."""
        for partition, keeper in self._keepers.items():
            if partition in keeper.owners:
                for host in self.fleet.hosts:
                    if host is not keeper:
                        self.fleet.disown(host, partition)

    def _settle(self) -> asyncio.Task[None]:
        self._settled = False
        watch = self._outside(self._watch())
        if not self.loop.run(lambda: self._settled, self.loop.time() + SETTLE_SECONDS):
            self.problems += [f"stuck: {text}" for text in self.behind()]
        return watch

    async def _watch(self) -> None:
        behind = self.behind()
        while behind:
            await asyncio.sleep(0.25)
            behind = self.behind()
        self._settled = True

    def behind(self) -> list[str]:
        """Partitions that are behind, with how far; refused ones that may be refused are at rest."""
        behind = self.publishing.unsettled()
        for partition, log in enumerate(self.commands):
            if self.may_be_refused(partition) and self.fleet.refused(partition):
                continue
            last = log.records[-1].offset if log.records else -1
            tables = self.database_of(partition).tables.get(partition)
            applied = -1 if tables is None else tables.next_offset - 1
            answered = self.last_answered(partition)
            # Answers to what a replaced log does not have: an owner that has looked refuses.
            unheard_of = partition in self.refusable and answered >= log.end
            read = self.fleet.read_up_to(partition)
            if applied < last or answered < last or unheard_of:
                behind.append(f"p{partition}: commands up to {last}, applied {applied}, answered {answered}")
            elif read < log.stable_end:
                behind.append(
                    f"p{partition}: lag: read up to {read}, and nothing waits before {log.stable_end}"
                )
        return behind

    def may_be_refused(self, partition: int) -> bool:
        """Whether an owner of this partition has a reason to refuse it in the end."""
        if self.plan.disaster == removed_early.COMMANDS and not removed_early.is_any_lost(self, partition):
            return False
        return partition in self.refusable

    def last_answered(self, partition: int) -> int:
        """The command offset of the last result in the topic, or -1."""
        return last_answered(self.results[partition])

    def _stop(self) -> None:
        """Drain everything."""
        loop = self.loop
        self.stopping = True
        self.publishing.stop()
        for partition in range(self.plan.partitions):
            if (refusal := self.fleet.refused(partition)) is not None:
                self.refusals[partition] = refusal
        for host in self.fleet.hosts:
            for partition in list(host.owners):
                self.fleet.disown(host, partition)
            for partition in range(self.plan.partitions):
                host.stopping.add(partition)
        alive = [
            task for host in self.fleet.hosts for running in host.owners.values() for task in [running.task]
        ]
        if not loop.run(lambda: all(task.done() for task in alive), loop.time() + 60):
            self.problems.append("stuck: an owner that was told to stop did not end within 60 s")
        loop.run(lambda: False, loop.time() + self.kafka.latest + 2)
        left = [
            log
            for log in self.fleet.opened
            if not (log.closed or (log.process is not None and log.process.dead))
        ]
        if left:
            self.problems.append(f"leaked: {len(left)} logs were never closed")
        self.problems += [*self.publishing.problems(), *self.poison.problems]

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
    before = emitter.EMIT_BYTES
    emitter.EMIT_BYTES = size  # type: ignore[misc]
    try:
        yield
    finally:
        emitter.EMIT_BYTES = before  # type: ignore[misc]
