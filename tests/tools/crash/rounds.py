"""Rounds of a crash test: start an agent, let it work, kill it; in the end, compare its reports with the log."""

import asyncio
import json
import random
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from tests.oracle.books import read_all

from waypost import Publisher, Topics
from waypost.model.index import DEDUP_WINDOW
from waypost.wire.envelope import open_envelope
from waypost_worker.devserver import EmbeddedKafka, Endpoints

NOWHERE = "127.0.0.1:1"
SESSIONS = 4
#: Kafka's state during a round: it works; it can't be reached; it freezes while the agent works.
KafkaState = Literal["up", "down", "frozen"]
STATES: tuple[KafkaState, ...] = ("up", "down", "frozen")
#: How the agent ends; see tests/tools/crash/agent.py.
Death = Literal["kill", "exit", "fork", "abort"]
DEATHS: tuple[Death, ...] = ("kill", "exit", "fork", "abort")


@dataclass
class Said:
    """The reports of the agents and the commands left, by number."""

    accepted: set[int] = field(default_factory=set)
    delivered: set[int] = field(default_factory=set)
    left: int = 0

    def hear(self, line: bytes) -> None:
        letter, number = line.decode().split()
        if letter == "a":
            self.accepted.add(int(number))
        elif letter == "d":
            self.delivered.add(int(number))
        else:
            self.left += int(number)


@dataclass
class RoundReport:
    """The outcomes of the commands. ``unheard`` arrived without a report, because their agent was killed between the
    return of the call and the report. ``farthest`` is how many other commands of a session came between a command and
    its repetition: below 256, the worker still knows its id.
    """

    kills: int
    accepted: int
    arrived: int
    missing: int
    missing_though_delivered: int
    applied_twice: int
    out_of_order: int
    unheard: int
    sent_again: int
    farthest: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


class Rounds:
    """Agents one after another on one spool directory."""

    def __init__(self, kafka: EmbeddedKafka, topics: Topics, directory: Path, seed: int) -> None:
        self.said = Said()
        self.kills = 0
        self._kafka = kafka
        self._topics = topics
        self._directory = directory
        self._chooser = random.Random(seed)
        self._next = 0
        self._heard = asyncio.Event()

    async def kill(self, state: KafkaState, death: Death = "kill", **options: Any) -> None:
        """One agent under load, which dies after a random while."""
        choose = self._chooser
        threads = choose.choice([0, 0, 3])
        job = self._job(NOWHERE if state == "down" else self._kafka.bootstrap_servers, threads, options)
        job["options"].setdefault("max_buffer_count", choose.choice([60, 1000, 100_000]))
        job["burst"] = choose.choice([5, 50, 500])
        job["death"] = death
        if death == "fork":
            # The parent sends what is left of the other sessions while its child publishes, in no order with it.
            job["session"] = f"of-the-child-{self._next}"
        async with _Process(job, self.said) as agent:
            await agent.speaks()
            if state == "frozen":
                await asyncio.sleep(choose.random() * 0.3)
                self._kafka.suspend()
            await asyncio.sleep(choose.random() * 0.5)
            await agent.die(death)
        if state == "frozen":
            self._kafka.resume()
        self.kills += 1
        self._next = max(self.said.accepted) + threads + 2

    async def ends(self, count: int, **options: Any) -> int:
        """Run an agent that can't reach Kafka, publishes this many, and lives to close. Return how many it reports as
        left.
        """
        before = self.said.left
        async with _Process({**self._job(NOWHERE, 0, options), "goal": count}, self.said) as agent:
            await agent.ended()
        self._next += count
        return self.said.left - before

    def _job(self, bootstrap: str, threads: int, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "bootstrap": bootstrap,
            "prefix": self._topics.prefix,
            "first": self._next,
            "session": "session",
            "sessions": SESSIONS,
            "burst": 50,
            "threads": threads,
            "goal": -1,
            "death": "kill",
            "options": {"spool": str(self._directory), **options},
        }

    async def drain(self) -> None:
        """The next publisher of the directory, which lives."""
        async with Publisher(
            self._kafka.bootstrap_servers, topic_prefix=self._topics.prefix, spool=self._directory
        ) as publisher:
            left = await publisher.flush(120)
            assert left == 0, publisher.stats()
        remaining = sorted(path.name for path in self._directory.iterdir())
        assert remaining == ["directory.lock"]

    async def verdict(self) -> RoundReport:
        """Compare the reports with the log, applied as by a worker that remembers no more ids than the contract
        requires.
        """
        read = await read_all(Endpoints(self._kafka.bootstrap_servers, ""), self._topics.commands)
        applied: dict[str, list[int]] = defaultdict(list)
        sent_again = applied_twice = farthest = 0
        places: dict[str, dict[str, int]] = defaultdict(dict)  # by session and id: at which of its commands
        for record in (record for records in read.values() for record in records):
            envelope = open_envelope(record)
            session = envelope.session_id or ""
            known = places[session]
            if envelope.id not in known:
                known[envelope.id] = len(known)
                applied[session].append(int(envelope.id[2:]))
                continue
            since = len(known) - known[envelope.id] - 1
            sent_again += 1
            farthest = max(farthest, since)
            applied_twice += since >= DEDUP_WINDOW
        arrived = {number for numbers in applied.values() for number in numbers}
        missing = self.said.accepted - arrived
        return RoundReport(
            kills=self.kills,
            accepted=len(self.said.accepted),
            arrived=sum(map(len, applied.values())) + sent_again,
            missing=len(missing),
            missing_though_delivered=len(missing & self.said.delivered),
            applied_twice=applied_twice,
            out_of_order=sum(
                after < before for numbers in applied.values() for before, after in pairwise(numbers)
            ),
            unheard=len(arrived - self.said.accepted),
            sent_again=sent_again,
            farthest=farthest,
        )


class _Process:
    """An agent's process. Its output is read until its last line, even after its death."""

    def __init__(self, job: dict[str, Any], said: Said) -> None:
        self._job = job
        self._said = said
        self._first_word = asyncio.Event()

    async def __aenter__(self) -> "_Process":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.tools.crash.agent",
            json.dumps(self._job),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._hearing = asyncio.create_task(self._hear())
        self._complaints = asyncio.create_task(self._process.stderr.read())  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await asyncio.gather(self._hearing, self._complaints, self._process.wait())

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._said.hear(line)
            self._first_word.set()
        self._first_word.set()

    async def speaks(self) -> None:
        """Wait for its first word."""
        await asyncio.wait_for(self._first_word.wait(), 60)
        if self._process.returncode is not None or self._hearing.done():
            raise AssertionError((await self._complaints).decode())

    async def ended(self) -> None:
        """Wait for its end."""
        assert await asyncio.wait_for(self._process.wait(), 60) == 0, (await self._complaints).decode()

    async def die(self, death: Death) -> None:
        """Let it end in the middle of its work."""
        if death == "kill":
            self._process.kill()
            return
        assert self._process.stdin is not None
        self._process.stdin.write(b"now\n")
        await asyncio.wait_for(self._process.wait(), 60)
