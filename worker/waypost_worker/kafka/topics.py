"""Making and checking the two topics and the broker settings that the protocol relies on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from waypost.topics import Topics
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.kafka.fenced import MAX_BATCH_BYTES
from waypost_worker.partition.ports import UnavailableError

COMMAND_BYTES: Final = 1_048_588  # Kafka's own default
_DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was checked. ``mend`` says what to do where it is not ``ok``."""

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    mend: str = ""


def topic_settings(topics: Topics, brokers: int) -> dict[str, dict[str, str]]:
    """The settings of each topic by name."""
    common = {"cleanup.policy": "delete", "unclean.leader.election.enable": "false"}
    if brokers >= 3:
        common["min.insync.replicas"] = "2"
    return {
        # The broker's clock orders and dates commands. The log is the source of truth: it is kept for ever
        # until snapshots make less enough.
        topics.commands: {
            **common,
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": "-1",
            "retention.bytes": "-1",
            "max.message.bytes": str(COMMAND_BYTES),
        },
        # A result that lists everything that retention dropped from a full session can be large.
        topics.results: {
            **common,
            "retention.ms": str(7 * _DAY_MS),
            "max.message.bytes": str(MAX_BATCH_BYTES),
        },
    }


async def create_topics(connection: Connection, topics: Topics, partitions: int) -> list[str]:
    """Make the topics that are missing; their names. Existing ones stay as they are (see check_topics)."""
    made = []
    async with _admin(connection) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        replication = min(3, brokers)
        for name, settings in topic_settings(topics, brokers).items():
            new = NewTopic(name, partitions, replication, topic_configs=settings)
            answer: Any = await admin.create_topics([new])
            code = answer.topic_errors[0][1]
            if code == 0:
                made.append(name)
            elif for_code(code) is not TopicAlreadyExistsError:
                raise UnavailableError(f"Kafka would not make the topic {name!r}: {for_code(code).__name__}")
        await _until_led(admin, list(topic_settings(topics, brokers)), connection.request_timeout)
    return made


async def _until_led(admin: AIOKafkaAdminClient, names: list[str], seconds: float) -> None:
    """Wait until every partition has a leader; a topic is made before it is ready."""
    async with asyncio.timeout(seconds):
        while True:
            described = await admin.describe_topics(names)
            partitions = [partition for topic in described for partition in topic["partitions"]]
            ready = all(topic["error_code"] == 0 for topic in described)
            if ready and partitions and all(partition["leader"] >= 0 for partition in partitions):
                return
            await asyncio.sleep(0.05)


async def check_topics(connection: Connection, topics: Topics) -> list[Finding]:
    """Compare topics and broker settings with what the protocol needs."""
    async with _admin(connection) as admin:
        cluster = await admin.describe_cluster()
        brokers = len(cluster["brokers"])
        described = {
            topic["topic"]: topic
            for topic in await admin.describe_topics([topics.commands, topics.results])
            if topic["error_code"] == 0
        }
        findings = _check_existence(topics, described)
        for name in described:
            settings = await _settings(admin, ConfigResourceType.TOPIC, name)
            findings += _check_topic(name, topic_settings(topics, brokers)[name], settings)
            findings += _check_replication(name, described[name], brokers)
        node = str(cluster["brokers"][0]["node_id"])
        findings += _check_broker(await _settings(admin, ConfigResourceType.BROKER, node))
    return findings


def _check_existence(topics: Topics, described: dict[str, Any]) -> list[Finding]:
    missing = [name for name in (topics.commands, topics.results) if name not in described]
    if missing:
        return [Finding("error", name, "does not exist", "run 'waypost topics create'") for name in missing]
    counts = {name: len(topic["partitions"]) for name, topic in described.items()}
    if len(set(counts.values())) > 1:
        return [
            Finding(
                "error",
                topics.results,
                f"has {counts[topics.results]} partitions, {topics.commands} has {counts[topics.commands]}",
                "both need the same count: make new topics under another prefix",
            )
        ]
    return [Finding("ok", topics.commands, f"{counts[topics.commands]} partitions, as many as the results")]


def _check_topic(name: str, wanted: dict[str, str], found: dict[str, str]) -> list[Finding]:
    findings = []
    for key, value in wanted.items():
        actual = found.get(key, "")
        level = _level(key, value, actual)
        mend = "" if level == "ok" else f"set {key}={value} on the topic"
        findings.append(Finding(level, name, f"{key}={actual}", mend))
    return findings


def _level(key: str, wanted: str, actual: str) -> Literal["ok", "warning", "error"]:
    if key in ("cleanup.policy", "message.timestamp.type"):
        return "ok" if actual == wanted else "error"
    if key == "max.message.bytes":
        return "ok" if int(actual or 0) >= int(wanted) else "error"
    if key in ("retention.ms", "retention.bytes"):
        enough = actual == "-1" or (wanted != "-1" and int(actual or 0) >= int(wanted))
        return "ok" if enough else "warning"
    return "ok" if actual == wanted else "warning"


def _check_replication(name: str, topic: dict[str, Any], brokers: int) -> list[Finding]:
    replicas = min(len(partition["replicas"]) for partition in topic["partitions"])
    if brokers >= 3 and replicas < 3:
        return [
            Finding("warning", name, f"{replicas} replicas", "give it 3: one broker's loss loses data now")
        ]
    return [Finding("ok", name, f"{replicas} replicas on {brokers} broker(s)")]


def _check_broker(found: dict[str, str]) -> list[Finding]:
    findings = []
    for key in ("transactional.id.expiration.ms", "producer.id.expiration.ms"):
        value = int(found.get(key, 0))
        if value >= _DAY_MS:
            findings.append(Finding("ok", "brokers", f"{key}={value}"))
        else:
            findings.append(
                Finding(
                    "error",
                    "brokers",
                    f"{key}={value} is less than a day: the fence of an idle partition would be forgotten",
                    f"set {key} to at least {_DAY_MS}",
                )
            )
    return findings


async def delete_topic(connection: Connection, name: str) -> None:
    """Remove a topic and all that is in it."""
    async with _admin(connection) as admin:
        await admin.delete_topics([name])


async def create_scratch_topic(connection: Connection, name: str) -> None:
    """A topic of one partition for a test of the cluster."""
    async with _admin(connection) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        answer: Any = await admin.create_topics([NewTopic(name, 1, min(3, brokers))])
        code = answer.topic_errors[0][1]
        if code:
            raise UnavailableError(f"Kafka would not make the topic {name!r}: {for_code(code).__name__}")
        await _until_led(admin, [name], connection.request_timeout)


async def _settings(admin: AIOKafkaAdminClient, kind: ConfigResourceType, name: str) -> dict[str, str]:
    answers: Any = await admin.describe_configs([ConfigResource(kind, name)])
    return {entry[0]: entry[1] for answer in answers for entry in answer.resources[0][4]}


@asynccontextmanager
async def _admin(connection: Connection) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        async with kafka_errors("administering topics"):
            await asyncio.wait_for(admin.start(), 2 * connection.request_timeout)
            yield admin
    finally:
        await quietly(admin.close(), 1.0)
