"""One process of agents: each works on its session and publishes checkpoints as it goes, some of them bad.

Run as ``python -m tests.tools.demo.agents``; prints one JSON line at the end: what it published.
"""

import argparse
import asyncio
import json
import random
import time
import uuid
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from tests.support.commands import structured_event

from waypost import Publisher, Topics
from waypost.model.times import format_micros
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of

NAMES = ("task_started", "plan_made", "tool_called", "observation", "decision", "draft", "task_done")


class Agent:
    """A scripted agent: mostly creates, now and then every other command, and every kind of mistake."""

    def __init__(
        self, number: int, publisher: Publisher, raw: AIOKafkaProducer, topic: str, seed: int
    ) -> None:
        self.session = f"agent-{number:02d}"
        self.publisher = publisher
        self.raw = raw
        self.topic = topic
        self.random = random.Random(f"{seed}/{number}")
        self.step = 0
        self.bad = 0

    async def work(self, commands: int, per_second: float) -> int:
        """Publish ``commands`` commands at about this rate; how many of them were meant to be refused."""
        began = time.monotonic()
        for index in range(commands):
            await self.one()
            ahead = index / per_second - (time.monotonic() - began)
            if ahead > 0:
                await asyncio.sleep(ahead)
        return self.bad

    async def one(self) -> None:
        """One command, chosen by the seed."""
        self.step += 1
        roll = self.random.random()
        some = f"{self.session}:{max(1, self.step - self.random.randrange(12))}"
        publisher = self.publisher
        if self.step == 1:
            publisher.configure(self.session, max_checkpoints=60, compress_after=40, keep_recent=15)
        elif roll < 0.80:
            publisher.create(self.session, self.random.choice(NAMES), self.state(), {"step": self.step})
        elif roll < 0.84:
            publisher.pin(self.session, some)
        elif roll < 0.86:
            publisher.unpin(self.session, some)
        elif roll < 0.88:
            publisher.delete(self.session, some)
        elif roll < 0.91:
            publisher.rollback(self.session, some, discard_later=self.random.random() < 0.3)
        elif roll < 0.92:
            publisher.import_checkpoints(self.session, self.export(), on_conflict="replace")
        elif roll < 0.925:
            publisher.clear(self.session)
        elif roll < 0.96:
            await self.twice()
        else:
            await self.mistake()

    def state(self) -> dict[str, Any]:
        """A working state of about 1 KB."""
        return {
            "step": self.step,
            "goal": "write the report",
            "messages": [
                {"role": role, "content": "".join(self.random.choices("abcdefghij klmnopq", k=150))}
                for role in ("user", "assistant", "tool", "assistant")
            ],
            "scores": [round(self.random.random(), 6) for _ in range(8)],
        }

    def export(self) -> str:
        """Return a typical export of another deployment."""
        now = format_micros(time.time_ns() // 1000)
        listed = [
            {"id": identifier, "name": "imported", "timestamp": now, "data": {"from": identifier}}
            for identifier in (f"elsewhere:{self.step}", f"{self.session}:{max(1, self.step - 30)}")
        ]
        return json.dumps(listed)

    async def twice(self) -> None:
        """The same command id twice, as a client does that does not know whether the first one arrived."""
        command_id = str(uuid.UUID(int=self.random.getrandbits(128)))
        body = orjson.dumps({"name": "sent_twice", "data": self.state()})
        for _ in range(2):
            await self.send(self.headers(command_id), body)

    async def mistake(self) -> None:
        """One of the ways in which a client gets it wrong."""
        self.bad += 1
        headers = self.headers(str(uuid.UUID(int=self.random.getrandbits(128))))
        good = b'{"name":"n","data":{}}'
        deep = b'{"name":"n","data":{"a":' + b"[" * 101 + b"]" * 101 + b"}}"
        home = partition_of(self.session, self.partitions)
        mistakes: list[dict[str, Any]] = [
            {"value": b'{"name": "n", "data": {'},
            {"value": b"[1, 2, 3]"},
            {"value": b'{"name":"n"}'},
            {"value": b'{"name":"n","data":{},"colour":"red"}'},
            {"value": b'{"name":7,"data":{}}'},
            {"value": b'{"name":"n","data":{"x":NaN}}'},
            {"value": b'{"name":"n","data":{"x":123456789012345678901234}}'},
            {"value": deep},
            {"value": b'{"name":"n","data":{},"metadata":{"x":"\\u0000"}}'},
            {"value": b'{"name":"n","data":{"x":"' + b"y" * 925_000 + b'"}}'},
            {"value": good, "headers": [*headers[:4], ("ce_time", b"99999-01-01T00:00:00Z")]},
            {"value": good, "key": None},
            {"value": good, "key": b"\xff\xfe"},
            {"value": good, "key": b"s" * 201},
            {"value": good, "headers": []},
            {"value": None},
            {"value": good, "partition": (home + 1) % self.partitions},
            {
                "value": b'{"checkpoint_id":"somebody-else:1"}',
                "headers": self.headers("pin-" + uuid.uuid4().hex, EventType.PIN.wire),
            },
            {
                "value": good,
                "headers": self.headers("odd-" + uuid.uuid4().hex, b"waypost.checkpoint.explode"),
            },
            {
                "value": structured_event(
                    {"id": uuid.uuid4().hex, "source": "demo", "type": EventType.CLEAR},
                    time.time_ns() // 1000,
                    b'{"why":"not allowed"}',
                ),
                "headers": [("content-type", b"application/cloudevents+json")],
            },
        ]
        chosen = self.random.choice(mistakes)
        await self.send(
            chosen.get("headers", headers),
            chosen["value"],
            key=chosen.get("key", self.session.encode()),
            partition=chosen.get("partition", home),
        )

    def headers(self, command_id: str, kind: bytes = EventType.CREATE.wire) -> list[tuple[str, bytes]]:
        """Headers of a command that is sent without the library."""
        time_text = format_micros(time.time_ns() // 1000).encode()
        return command_headers(command_id, b"/demo/agents", kind, time_text)

    async def send(
        self,
        headers: list[tuple[str, bytes]],
        value: bytes | None,
        key: bytes | None = b"",
        partition: int | None = None,
    ) -> None:
        """Send a record as it is."""
        await self.raw.send_and_wait(
            self.topic,
            value,
            key=self.session.encode() if key == b"" else key,
            headers=headers,
            partition=partition_of(self.session, self.partitions) if partition is None else partition,
        )

    @property
    def partitions(self) -> int:
        """Return how many partitions the command topic has."""
        return len(self.raw.client.cluster.partitions_for_topic(self.topic) or (0,))


async def run(arguments: argparse.Namespace) -> dict[str, int]:
    """All agents of this process."""
    topics = Topics(arguments.prefix)
    raw = AIOKafkaProducer(
        bootstrap_servers=arguments.bootstrap, enable_idempotence=True, max_request_size=2 * 1024 * 1024
    )
    await raw.start()
    try:
        await raw.partitions_for(topics.commands)
        async with Publisher(
            arguments.bootstrap, topic_prefix=arguments.prefix, source="/demo/agents"
        ) as publisher:
            agents = [
                Agent(number, publisher, raw, topics.commands, arguments.seed)
                for number in range(arguments.first, arguments.first + arguments.agents)
            ]
            bad = await asyncio.gather(
                *(agent.work(arguments.commands, arguments.per_second) for agent in agents)
            )
            await publisher.flush(60)
    finally:
        await raw.stop()
    return {"agents": len(agents), "meant_to_be_refused": sum(bad)}


def main() -> None:
    """Parse, run, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--agents", type=int, required=True)
    parser.add_argument("--commands", type=int, required=True)
    parser.add_argument("--per-second", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
