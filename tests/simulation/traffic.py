"""What goes into a world and comes out of it: agents that publish, in transactions too, and a subscriber."""

import asyncio
from random import Random
from typing import TYPE_CHECKING

from tests.oracle import fold as folding
from tests.oracle.fold import is_skippable
from tests.simulation.agents import Agents
from tests.simulation.broker import ResultsPartition
from tests.simulation.database import request_skip
from tests.simulation.plan import LOSSY

from waypost.model.times import format_micros
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition.anchor import anchor_of

if TYPE_CHECKING:
    from tests.simulation.world import World


class Traffic:
    """The agents and the subscriber of a world."""

    def __init__(self, world: "World") -> None:
        plan = world.plan
        self._world = world
        self.published = 0
        self.away_until = [0.0] * plan.partitions  # nothing is published before
        self.cursors = [0] * plan.partitions  # how far the subscriber has read
        self.seen: list[list[tuple[int, str]]] = [[] for _ in range(plan.partitions)]
        self._in_transaction: set[int] = set()
        self._agents = [
            Agents(Random(plan.seed * 31 + p), p, plan.partitions, plan.sessions)
            for p in range(plan.partitions)
        ]

    def publish(self, partition: int) -> int | None:
        """An agent publishes its next command; the offset, or None if the partition is not there, or a publisher
        has accepted the command.
        """
        if self.is_away(partition):
            return None
        message = self._agents[partition].next(self._world.now_ms())
        if partition not in self._in_transaction and self._world.publishing.takes(message):
            self.published += 1
            return None
        key, value, headers = message
        skew = (
            self._world.random.randrange(50) if self._world.random.random() < 0.05 else 0
        )  # another leader's clock
        offset = self._world.commands[partition].append(self._world.now_ms() - skew, key, value, headers)
        self.published += 1
        if self._world.tell:
            self._world.tell(
                f"agent publishes p{partition} {offset}: {headers[3:4]} {key!r} {(value or b'')[:60]!r}"
            )
        return offset

    def skip(self, partition: int) -> bool:
        """What 'waypost commands skip' does with the command at which owners fail; whether there is one."""
        world = self._world
        database = world.database_of(partition)
        tables = database.tables.get(partition)
        offset = None if tables is None else tables.blocked_offset
        log = world.commands[partition]
        named = [record for record in log.records if record.offset == offset]
        if offset is None or not named or self.is_away(partition) or not is_skippable(named[0]):
            return False
        ahead = folding._Fold(partition, world.plan.partitions)
        for record in log.everything():  # an operator knows the key, whatever retention has removed
            if not is_skippable(record):
                ahead.one(record)
        if tables is None or (tables.authority.key is None and LOSSY & set(world.plan.faults)):
            # Where the authority is named behind the command, a Postgres that lost the request may have the command
            # applied all the same. Then the partition is refused at the order.
            return False
        # What is answered may be so only in the results, if Postgres was restored.
        if world.last_answered(partition) >= offset or not request_skip(database, partition, offset):
            return False
        for key, value, headers in self._agents[partition].order(
            offset, anchor_of(named[0]), world.now_ms(), ahead.key
        ):
            log.append(world.now_ms(), key, value, headers)
            self.published += 1
        world.say(f"an operator has p{partition} {offset} skipped")
        return True

    def is_away(self, partition: int) -> bool:
        return self._world.loop.time() < self.away_until[partition]

    def send(self, partition: int, session_id: str, command_type: str, body: bytes) -> int:
        """Publish one command; the offset."""
        now = self._world.now_ms()
        headers = command_headers(
            f"sent-{self.published}", b"/test", command_type.encode(), format_micros(now * 1000).encode()
        )
        self.published += 1
        return self._world.commands[partition].append(now, session_id.encode(), body, headers)

    async def agents_at_work(self) -> None:
        """Publish the planned number of commands, spread over the planned time."""
        plan, random = self._world.plan, self._world.random
        for left in range(plan.commands, 0, -1):
            partition = random.randrange(plan.partitions)
            if plan.together:
                for other in range(plan.partitions):
                    self.publish(other)
            if random.random() < plan.transactions:
                await self._transaction(partition)
            else:
                for _ in range(random.choice((1, 1, 1, 4))):
                    self.publish(partition)
            remaining = self._world.ends_at * 0.9 - self._world.loop.time()
            await asyncio.sleep(max(0.0, remaining / left) * 2 * random.random())

    async def _transaction(self, partition: int) -> None:
        log = self._world.commands[partition]
        transaction = self.published
        log.open(transaction)
        self._in_transaction.add(partition)
        published = [self.publish(partition) for _ in range(self._world.random.randrange(1, 4))]
        self._in_transaction.discard(partition)
        offsets = [offset for offset in published if offset is not None]
        await asyncio.sleep(self._world.random.random() * 0.3)
        if log is not self._world.commands[partition] or transaction not in log.transactions:
            return
        if self._world.random.random() < 0.5:
            log.abort(transaction, offsets)
        else:
            log.commit(transaction)

    async def subscriber(self) -> None:
        """Reads the results as they come, with Kafka's default isolation, and notes every event id."""
        random = Random(self._world.plan.seed + 5)
        cursors = self.cursors
        while True:
            for partition, log in enumerate(self._world.results):
                cursors[partition] = self._look(log, cursors[partition], self.seen[partition])
            await asyncio.sleep(0.2 + random.random())

    def _look(self, log: ResultsPartition, cursor: int, seen: list[tuple[int, str]]) -> int:
        if not log.start <= cursor <= log.end:
            cursor = log.start
        for record in log.between(cursor, log.end):
            headers = dict(record.headers)
            if headers.get("ce_type") != EventType.ACQUIRED.wire and record.producer_id >= 0:
                seen.append((record.offset, headers.get("ce_id", b"").decode()))
        return log.end
