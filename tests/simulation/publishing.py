"""Agents that publish with the real publisher, in processes that freeze, die and say goodbye.

Each session has one publisher. A publisher's life, from its start to its end, has a ``source`` of its own, by which
its commands are found in the log again. What must hold of them is in tests.simulation.accepted.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from zlib import crc32

from tests.simulation.agents import Message
from tests.simulation.loop import Process
from tests.simulation.producer import Cluster, SimulatedProducer

import waypost
from waypost.wire.envelope import command_headers
from waypost.wire.topics import partition_of

if TYPE_CHECKING:
    from tests.simulation.world import World

SOURCE = b"/simulation"  # of the commands that agents make
CLOSE_SECONDS = 20.0


class Life:
    """One publisher from its start to its end, with all that it accepted and what it told of it."""

    def __init__(self, process: Process, number: int) -> None:
        self.process = process
        self.source = f"/agent-{number}"
        self.accepted: list[tuple[str, int]] = []  # command ids and their partitions, in order
        self.delivered: set[str] = set()
        self.failed: dict[str, str] = {}  # why a command is not in the log, or perhaps is not
        self.publisher: Any = None
        self.task: asyncio.Task[None] | None = None
        self.killed = False
        self.leaving = False
        self.ended = False

    @property
    def at_work(self) -> bool:
        return self.publisher is not None and not (
            self.killed or self.process.paused or self.leaving or self.ended
        )

    def told(self, command_id: str, error: BaseException | None) -> None:
        if error is None:
            self.delivered.add(command_id)
        else:
            self.failed[command_id] = str(error)

    async def live(self, options: dict[str, Any]) -> None:
        self.publisher = waypost.Publisher(
            "simulated:9092",
            topic_prefix="sim",
            source=self.source,
            on_delivery=self.told,
            kafka_options=options,
        )
        await self.publisher.start()

    async def leave(self, timeout: float) -> None:
        await self.publisher.close(timeout)
        self.ended = True


class Publishing:
    """The publishers of a world. ``cluster`` is what their Kafka clients see."""

    def __init__(self, world: "World", cluster: Cluster) -> None:
        self.lives: list[Life] = []
        self.errors: list[str] = []
        self._world = world
        self._cluster = cluster
        self._random = Random(f"publishing {world.plan.seed}")
        self._now: list[Life] = []  # one for each of the plan's publishers

    @contextmanager
    def simulated_client(self) -> Iterator[None]:
        """Let the real publisher's sender make simulated producers; errors that it did not foresee are noted."""
        logger = logging.getLogger("waypost")
        noted = _Noted(self.errors)
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(noted)
        try:
            with patch("waypost.publisher.sender.BatchProducer", partial(SimulatedProducer, self._cluster)):
                yield
        finally:
            logger.removeHandler(noted)
            logger.propagate = propagate

    def start(self) -> None:
        """Start all publishers."""
        self._now = [self._born() for _ in range(self._world.plan.publishers)]

    def _born(self) -> Life:
        number = len(self.lives)
        process = Process(f"agent{number}")
        self._world.processes.append(process)
        life = Life(process, number)
        self.lives.append(life)
        options = {"request_timeout_ms": int(self._cluster.server.timeout * 1000)}
        life.task = self._world.loop.start(process, life.live(options))
        self._world.tasks.append(life.task)
        return life

    def takes(self, message: Message) -> bool:
        """Whether a publisher accepts this command. Mistakes, and what has no key, take other ways."""
        key, value, headers = message
        found = dict(headers)
        if not self._now or value is None or not key or found.get("ce_source") != SOURCE:
            return False
        life = self._now[crc32(key) % len(self._now)]
        usual = command_headers(
            found["ce_id"].decode(), SOURCE, found["ce_type"], found["ce_time"], found.get("traceparent")
        )
        # A publisher takes the trace from the agent's current span; here is none.
        if not life.at_work or headers != usual or "traceparent" in found:
            return False
        try:
            session_id, command_id = key.decode(), found["ce_id"].decode()
        except UnicodeDecodeError:
            return False
        life.publisher.publish_raw(
            session_id,
            found["ce_type"].decode(),
            value,
            timestamp=datetime.fromisoformat(found["ce_time"].decode()),
            command_id=command_id,
        )
        life.accepted.append((command_id, partition_of(session_id, self._world.plan.partitions)))
        return True

    async def chaos(self) -> None:
        """Freeze, kill and dismiss publishers, one after the other, until the world heals."""
        world, random = self._world, self._random
        while True:
            await asyncio.sleep(random.expovariate(1 / (4 * world.plan.calm)))
            if world.healed:
                return
            index = random.randrange(len(self._now))
            life = self._now[index]
            kind = random.choice(("agent_killed", "agent_frozen", "agent_leaves"))
            if not life.at_work:
                continue
            world.faults[kind] = world.faults.get(kind, 0) + 1
            world.say(f"fault: {kind} {life.process.name}")
            if kind == "agent_frozen":
                life.process.paused = True
                world.loop.call_later(8 * random.random(), self._wake, life)
            elif kind == "agent_killed":
                life.process.dead = life.killed = True
                self._now[index] = self._born()
            else:
                self._dismiss(life, random.choice((0.05, 1.0, 5.0)))
                self._now[index] = self._born()

    def _dismiss(self, life: Life, timeout: float) -> None:
        life.leaving = True
        self._world.tasks.append(self._world.loop.start(life.process, life.leave(timeout)))

    def _wake(self, life: Life) -> None:
        if life.process.paused:
            self._world.loop.resume(life.process)

    def heal(self) -> None:
        """All that are frozen go on."""
        for life in self.lives:
            self._wake(life)

    def unsettled(self) -> list[str]:
        """Publishers that still wait for Kafka to take something."""
        waiting = [life for life in self._now if life.publisher is not None and len(life.publisher._buffer)]
        return [f"{life.source}: {len(life.publisher._buffer)} accepted, not delivered" for life in waiting]

    def stop(self) -> None:
        """Dismiss all."""
        for life in self._now:
            if life.publisher is not None and not life.leaving:
                self._dismiss(life, CLOSE_SECONDS)

    def problems(self) -> list[str]:
        """What must not be at the end: publishers that do not end, clients that were not given up, surprises."""
        alive = [life for life in self.lives if not life.killed and not life.ended]
        problems = [f"stuck: {life.source} does not end" for life in alive]
        open_producers = [one for one in self._cluster.producers if not (one.closed or _dead(one.process))]
        if open_producers:
            problems.append(f"leaked: {len(open_producers)} producers were never closed")
        return problems + [f"publisher: {error}" for error in self.errors]

    def all_tasks(self) -> list[asyncio.Task[Any]]:
        """What the publishers run in the background."""
        senders = [
            life.publisher._sender._task for life in self.lives if life.publisher and life.publisher._sender
        ]
        return senders + [one.task for one in self._cluster.producers if one.task is not None]


def _dead(process: Process | None) -> bool:
    return process is not None and process.dead


class _Noted(logging.Handler):
    """Notes what was logged with a traceback: the publisher foresaw everything else."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._errors.append(f"{record.getMessage()}: {record.exc_info[1]!r}")
