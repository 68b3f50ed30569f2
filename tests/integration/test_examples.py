"""Each example runs as it stands, in a process of its own, against real servers."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.support.deployment import deployment
from tests.support.timeouts import PATIENCE

from waypost_worker.devserver import Servers

EXAMPLES = Path(__file__).parents[2] / "examples"
PRINTED = {
    "langgraph_thread.py": [
        "asked: publish?",
        "notes: ['found three sources', 'reviewer: yes']",
        "checkpoints, newest first: [2, 1, 0, -1]",
    ],
    "openai_agents_session.py": [
        "hello -> I see 1 messages",
        "and now? -> I see 3 messages",
        "still there? -> I see 5 messages",
        "items left: 5 the last two: 2",
    ],
    "agent_framework_resume.py": [
        "gathering whales",
        "stopped: the machine went away",
        "resuming from step 1",
        "a report from 3 sources",
    ],
    "claude_agent_transcripts.py": [
        "session: whales - first prompt: How many whales are there?",
        "user: How many whales are there?",
        "assistant: About 90 species.",
        "sessions left: 0",
    ],
    "google_adk_session.py": [
        "hello -> I see 1 events",
        "and now? -> I see 3 events",
        "this object is stale: the session has moved on",
        "turns of the user: 2",
        "sessions left: 0",
    ],
    "billing_subscriber.py": [
        "billed run-1:1: 1200 tokens",
        "kept in .billing.dead-letters: run-1:2 used -1 tokens",
        "billed run-1:3: 300 tokens",
    ],
    "read_sessions.py": [
        "latest: ('team-a/run-1:5', 'done', {'answer': 42})",
        "even steps: [0, 2]",
        "page: ['team-a/run-1:5', 'team-a/run-1:4']",
        "page: ['team-a/run-1:3', 'team-a/run-1:2']",
        "page: ['team-a/run-1:1']",
        "active sessions: [('team-a/run-1', 5)]",
        "exported: True",
    ],
    "kms_encryption.py": [
        "wrapped by KMS: True",
        "with the key: {'finding': 'benign'}",
        "without it: ['waypost.encrypted']",
    ],
    "confluent_producer.py": [f"run-{session}: in the log" for _ in range(3) for session in "abc"],
}


@pytest.fixture(scope="module")
def kms() -> Iterator[dict[str, str]]:
    """The environment of a process that uses a key management service, and a key in it."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        access = {
            "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client(
            "kms",
            endpoint_url=access["AWS_ENDPOINT_URL"],
            region_name=access["AWS_DEFAULT_REGION"],
            aws_access_key_id=access["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=access["AWS_SECRET_ACCESS_KEY"],
        )
        yield {**access, "KMS_KEY_ID": client.create_key()["KeyMetadata"]["KeyId"]}
    finally:
        server.stop()


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
async def test_an_example_runs(
    servers: Servers, database: str, topic_prefix: str, name: str, kms: dict[str, str]
) -> None:
    async with deployment(servers.endpoints, database, topic_prefix) as here:
        here.own()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error::DeprecationWarning", EXAMPLES / name),
            env={
                **os.environ,
                **kms,
                "WAYPOST_BOOTSTRAP_SERVERS": here.endpoints.bootstrap_servers,
                "WAYPOST_POSTGRES_DSN": database,
                "WAYPOST_TOPIC_PREFIX": topic_prefix,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, err.decode()
    assert out.decode().splitlines() == PRINTED[name]
