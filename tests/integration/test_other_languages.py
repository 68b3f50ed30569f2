"""Commands from other clients: Kafka's Java console producer, and librdkafka with the right and the wrong hash.

The command lines and records are those of docs/other-languages.md.
"""

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.deployment import Deployment, deployment
from tests.support.servers import unavailable
from tests.support.timeouts import PATIENCE

from waypost import Reader
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.devserver import DevServerError, Servers
from waypost_worker.devserver.jars import ensure_jars
from waypost_worker.devserver.jvm import FAST_START, Runtime

PARTITIONS = 3
REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "other-languages.md").read_text()
SESSIONS = ("run-a", "run-b", "run-c")


@pytest.fixture
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, PARTITIONS) as made:
        for partition in range(PARTITIONS):
            made.own(partition)
        yield made


def block(language: str) -> str:
    """The page's code block in this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


async def run(command: list[str], given: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, err = await asyncio.wait_for(process.communicate(given.encode()), PATIENCE)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_console_producer_of_kafka(world: Deployment, tmp_path: Path) -> None:
    try:
        jars = [*ensure_jars(), *ensure_jars(lock_file=Path(__file__).with_name("console_producer.lock"))]
    except DevServerError as error:
        unavailable(str(error))
    program, *arguments = shlex.split(
        block("sh")
        .replace("localhost:9092", world.endpoints.bootstrap_servers)
        .replace("waypost.commands", world.topics.commands)
    )
    assert program == "kafka-console-producer.sh"
    command = Runtime(tuple(jars)).command(
        "org.apache.kafka.tools.ConsoleProducer", arguments, profile=FAST_START, scratch=tmp_path
    )
    await run(command, block("text"))
    books = await world.balanced()
    assert (books.commands, books.rejected) == (4, 0)
    async with Reader(world.dsn) as reader:
        first = await reader.session("session-1").get("session-1:1")
        assert first is not None
        assert (first.name, first.raw_data, first.pinned) == ("task_started", b'{"step": 1}', True)
        # Without ce_time the broker's time is the checkpoint's.
        assert first.timestamp == first.recorded_at
        second = await reader.session("session-2").get_latest()
        assert second is not None
        assert (second.data, second.metadata) == ({"text": "a|b, c:d"}, {"by": "hand"})
        assert await reader.session("session-3").count() == 1


async def publish_with_confluent(world: Deployment, partitioner: str) -> str:
    return await run(
        [sys.executable, str(REPOSITORY / "examples" / "confluent_producer.py")],
        "",
        WAYPOST_BOOTSTRAP_SERVERS=world.endpoints.bootstrap_servers,
        WAYPOST_TOPIC_PREFIX=world.topics.prefix,
        PARTITIONER=partitioner,
    )


async def test_librdkafka_with_kafkas_own_hash(world: Deployment) -> None:
    out = await publish_with_confluent(world, "murmur2_random")
    assert sorted(out.split("\n")[:-1]) == sorted(f"{session}: in the log" for session in SESSIONS * 3)
    await world.balanced()
    async with Reader(world.dsn) as reader:
        for session in SESSIONS:
            steps = [checkpoint.data["step"] for checkpoint in await reader.session(session).get_all()]
            assert steps == [0, 1, 2]


async def test_librdkafkas_default_hash_gets_a_rejection_that_says_what_to_set(world: Deployment) -> None:
    await publish_with_confluent(world, "consistent_random")
    await world.balanced()
    found: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for number, records in (await world.results()).items():
        for record in records:
            headers = dict(record.headers)
            if headers["ce_type"] == EventType.ACQUIRED.wire:
                continue
            body = orjson.loads(record.value)
            # The answer comes where the command came.
            assert body["command"]["partition"] == number
            found.setdefault((body["session_id"], body.get("code")), []).append(body)
    wrong = [session for session, code in found if code == "misrouted"]
    assert wrong, "every session hashes to the same partition both ways"
    for session, code in found:
        answers = found[session, code]
        assert len(answers) == 3
        came, belongs = answers[0]["command"]["partition"], partition_of(session, PARTITIONS)
        assert (code == "misrouted") == (came != belongs)
        if code == "misrouted":
            assert "partitioner=murmur2_random" in answers[0]["message"]
            assert re.search(rf"\b{came}\b.*\b{belongs}\b|\b{belongs}\b.*\b{came}\b", answers[0]["message"])
    kept = await world.pool.fetch("select session_id, code from waypost.rejected_commands")
    assert sorted(row["session_id"] for row in kept) == sorted(wrong * 3)
    async with Reader(world.dsn) as reader:
        assert {session: await reader.session(session).count() for session in SESSIONS} == {
            session: 0 if session in wrong else 3 for session in SESSIONS
        }
