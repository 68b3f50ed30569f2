"""Making and checking the two topics and the broker settings that the protocol relies on."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, Final, Literal, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    NodeNotReadyError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from waypost.wire.topics import Topics
from waypost_worker.findings import Finding as Finding
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.kafka.produce import MAX_BATCH_BYTES
from waypost_worker.partition.ports import RefusedError, UnavailableError

COMMAND_BYTES: Final = 1_048_588  # Kafka's own default
_DAY_MS: Final = 24 * 3600 * 1000
FOR_EVER: Final = -1
RESULTS_RETENTION_MS: Final = 7 * _DAY_MS
# Kafka's own default, and what brokers wait between two looks for segments that are old enough, and some more.
_SEGMENT_MS: Final = 7 * _DAY_MS
_RETENTION_CHECK_MS: Final = 10 * 60 * 1000
# Owners renew their fence record after 12 hours, so that one is always in the log.
LEAST_RESULTS_RETENTION_MS: Final = _DAY_MS
_REPLICAS: Final = 3
_DENIED: Final = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
_OF_THE_TOPIC: Final = 1  # source of a setting that was made on a topic, and is not a default
# The default of clients: brokers that allow less refuse those that ask for nothing else.
_TRANSACTION_MS: Final = 60_000


def topic_settings(
    topics: Topics,
    replicas: int,
    *,
    commands_retention_ms: int = FOR_EVER,
    results_retention_ms: int = RESULTS_RETENTION_MS,
) -> dict[str, dict[str, str]]:
    """Return the settings of each topic by name, for topics with this many replicas."""
    common = {"cleanup.policy": "delete", "unclean.leader.election.enable": "false", **_in_sync(replicas)}
    return {
        # The broker's clock orders and timestamps commands. The log is the source of truth, so it is kept indefinitely
        # until snapshots allow less.
        topics.commands: {
            **common,
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": str(commands_retention_ms),
            "retention.bytes": str(FOR_EVER),
            "max.message.bytes": str(COMMAND_BYTES),
        },
        # A broker forgets a fence once it is a day old by the time of its batch, which must not be a worker's. After a
        # restart it knows only the fences in the log, so no number of bytes may push them out.
        topics.results: {
            **common,
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": str(results_retention_ms),
            "retention.bytes": str(FOR_EVER),
            # A result that lists everything that retention dropped from a full session can be large.
            "max.message.bytes": str(MAX_BATCH_BYTES),
        },
    }


def _in_sync(replicas: int) -> dict[str, str]:
    # Said in any case: a broker's default of 2 would make a topic of one replica refuse everything.
    return {"min.insync.replicas": "2" if replicas >= _REPLICAS else "1"}


async def create_topics(
    connection: Connection,
    topics: Topics,
    partitions: int,
    *,
    replicas: int | None = None,
    commands_retention_ms: int = FOR_EVER,
    results_retention_ms: int = RESULTS_RETENTION_MS,
) -> list[str]:
    """Make the topics that are missing; their names. Existing ones stay as they are (see check_topics).

    ``replicas`` is 3, or the number of brokers if that is less. Retention is in milliseconds, -1 for unlimited. Raise
    RefusedError if only one exists and has a different number of partitions, or if results would be kept for less than
    a day; raise UnavailableError if Kafka refuses.
    """
    if FOR_EVER < results_retention_ms < LEAST_RESULTS_RETENTION_MS:
        raise RefusedError(
            f"results must be kept for at least 24 hours, not {results_retention_ms / 3_600_000:g}: the record that "
            "fences former owners is one of them. Nothing was created"
        )
    async with _admin(connection) as admin:
        if replicas is None:
            replicas = min(_REPLICAS, await _broker_count(admin, connection.request_timeout))
        wanted = topic_settings(
            topics,
            replicas,
            commands_retention_ms=commands_retention_ms,
            results_retention_ms=results_retention_ms,
        )
        present = [topic for topic in await admin.describe_topics(list(wanted)) if topic["error_code"] == 0]
        for topic in present:
            if len(present) < len(wanted) and len(topic["partitions"]) != partitions:
                raise RefusedError(
                    f"the topic {topic['topic']!r} exists with {len(topic['partitions'])} partitions and the "
                    f"other one needs as many, not {partitions}. Nothing was created"
                )
        made = []
        for name, settings in wanted.items():
            if await _create(admin, NewTopic(name, partitions, replicas, topic_configs=settings)):
                made.append(name)
        await _until_led(admin, list(wanted), connection.request_timeout)
    return made


async def _create(admin: AIOKafkaAdminClient, new: NewTopic) -> bool:
    """Return whether it was created; False if it exists."""
    answer: Any = await admin.create_topics([new])
    code: int
    code, *said = answer.topic_errors[0][1:]
    if code and for_code(code) is not TopicAlreadyExistsError:
        reason = (said[0] if said else "") or for_code(code).description
        raise UnavailableError(f"Kafka would not create the topic {new.name!r}: {reason}")
    return not code


async def _broker_count(admin: AIOKafkaAdminClient, seconds: float) -> int:
    """Return how many brokers are alive. A broker that has just started answers before it knows of any, including
    itself.
    """
    async with asyncio.timeout(seconds):
        while True:
            try:
                brokers = (await admin.describe_cluster())["brokers"]
            except NodeNotReadyError:  # the client knows no broker to ask
                brokers = []
            if brokers:
                return len(brokers)
            await asyncio.sleep(0.05)


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


class Update(NamedTuple):
    """A setting of a topic that was changed."""

    topic: str
    setting: str
    before: str
    now: str


async def update_topics(connection: Connection, topics: Topics, *, dry_run: bool = False) -> list[Update]:
    """Change the settings of existing topics that break the protocol (errors of check_topics). Return the changes.

    UnavailableError if a topic does not exist or Kafka refuses.
    """
    updates = []
    async with _admin(connection) as admin:
        brokers = await _broker_count(admin, connection.request_timeout)
        for name, wanted in topic_settings(topics, min(_REPLICAS, brokers)).items():
            found = await _settings(admin, ConfigResourceType.TOPIC, name)
            wrong = {
                key: value
                for key, value in wanted.items()
                if _level(key, value, found.get(key, ""), fences=name == topics.results) == "error"
            }
            updates += [Update(name, key, found.get(key, ""), value) for key, value in wrong.items()]
            if wrong and not dry_run:
                await _alter(admin, name, wrong)
    return updates


async def _alter(admin: AIOKafkaAdminClient, name: str, changes: Mapping[str, str]) -> None:
    # The request replaces all settings that were ever made on the topic, so it names the others as they are.
    kept = await _settings(admin, ConfigResourceType.TOPIC, name, own_only=True)
    answers: Any = await admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name, {**kept, **changes})]
    )
    code, said, *_ = answers[0].resources[0]
    if code:
        reason = said or for_code(code).description
        raise UnavailableError(f"Kafka would not change the settings of {name!r}: {reason}")


async def create_results_topic(connection: Connection, topics: Topics, partitions: int) -> bool:
    """Make the results topic alone, if it is missing; whether it was.

    RefusedError if it exists with another number of partitions.
    """
    async with _admin(connection) as admin:
        replicas = min(_REPLICAS, await _broker_count(admin, connection.request_timeout))
        settings = topic_settings(topics, replicas)[topics.results]
        made = await _create(admin, NewTopic(topics.results, partitions, replicas, topic_configs=settings))
        await _until_led(admin, [topics.results], connection.request_timeout)
        (described,) = await admin.describe_topics([topics.results])
    if len(described["partitions"]) != partitions:
        raise RefusedError(
            f"the topic {topics.results!r} has {len(described['partitions'])} partitions, the command topic "
            f"{partitions}: results go to the partition of the same number. Nothing was changed; name another"
        )
    return made


async def check_topics(
    connection: Connection, topics: Topics, session_timeout: float | None = None, *, brokers: bool = True
) -> list[Finding]:
    """Compare topics and broker settings with the protocol's requirements, and with a worker's session timeout in
    seconds if given. Without ``brokers``, only the topics are checked.
    """
    async with _admin(connection) as admin:
        nodes = (await admin.describe_cluster())["brokers"]
        described = {
            topic["topic"]: topic
            for topic in await admin.describe_topics([topics.commands, topics.results])
            if topic["error_code"] == 0
        }
        findings = _check_existence(topics, described)
        wanted = topic_settings(topics, min(_REPLICAS, len(nodes)))
        for name, topic in described.items():
            try:
                settings = await _settings(admin, ConfigResourceType.TOPIC, name)
            except RefusedError:
                findings.append(_not_checked(name, "topic"))
                continue
            findings += _check_topic(name, wanted[name], settings, fences=name == topics.results)
            findings += _check_replication(name, topic, settings, len(nodes))
        for broker in nodes if brokers else ():
            node = broker["node_id"]
            try:
                settings = await _settings(admin, ConfigResourceType.BROKER, str(node))
            except RefusedError:
                findings.append(_not_checked(f"broker {node}", "cluster"))
                continue
            findings += _check_broker(f"broker {node}", settings, len(nodes))
            findings.append(_check_transactions(f"broker {node}", settings))
            findings.append(_check_authorizer(f"broker {node}", settings, broker["host"]))
            if session_timeout is not None:
                findings.append(_check_group(f"broker {node}", settings, session_timeout))
    return findings


def _not_checked(subject: str, resource: str) -> Finding:
    message = "its settings were not checked: this principal may not read them"
    return Finding("warning", subject, message, f"give it DescribeConfigs on the {resource}")


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
                "both need the same count: create new topics under another prefix",
            )
        ]
    return [Finding("ok", topics.commands, f"{counts[topics.commands]} partitions, as many as the results")]


def _check_topic(name: str, wanted: dict[str, str], found: dict[str, str], *, fences: bool) -> list[Finding]:
    """Compare a topic's settings. ``fences`` says that fence records are in it."""
    findings = []
    for key, value in wanted.items():
        actual = found.get(key, "")
        level = _level(key, value, actual, fences=fences)
        fix = "" if level == "ok" else f"set {key}={value} on the topic"
        if level == "error":
            fix = f"run 'waypost topics update', or {fix}"
        elif fix and key.startswith("retention.") and value == str(FOR_EVER):
            fix += ", or take snapshots more often than that (docs/snapshots.md)"
        unsafe = key == "cleanup.policy" and "compact" in actual
        if unsafe:
            fix += ": compaction removes commands before they are applied, and results before they are read"
        findings.append(Finding(level, name, f"{key}={actual}", fix, unsafe))
    return findings


def _level(key: str, wanted: str, actual: str, *, fences: bool) -> Literal["ok", "warning", "error"]:
    if actual == wanted:
        return "ok"
    if key in ("cleanup.policy", "message.timestamp.type"):
        return "error"
    if key == "max.message.bytes":
        return "ok" if int(actual or 0) >= int(wanted) else "error"
    if key in ("retention.ms", "retention.bytes"):
        kept = int(actual or 0)
        if kept == FOR_EVER or FOR_EVER < int(wanted) <= kept:
            return "ok"
        least = LEAST_RESULTS_RETENTION_MS if key == "retention.ms" else math.inf
        return "error" if fences and kept < least else "warning"
    return "warning"


def _check_replication(
    name: str, topic: dict[str, Any], settings: dict[str, str], brokers: int
) -> list[Finding]:
    replicas = min(len(partition["replicas"]) for partition in topic["partitions"])
    if (needed := int(settings.get("min.insync.replicas") or 1)) > replicas:
        message = (
            f"{replicas} replica(s), but min.insync.replicas={needed}: older brokers write nothing then, "
            f"Kafka 4 takes {replicas} for enough"
        )
        return [
            Finding("error", name, message, f"give it {_REPLICAS} replicas, or set min.insync.replicas=1")
        ]
    if brokers >= _REPLICAS > replicas:
        message = f"{replicas} replica(s) on {brokers} brokers: the loss of one can lose data"
        return [Finding("warning", name, message, f"give it {_REPLICAS} replicas")]
    if lacking := [p["partition"] for p in topic["partitions"] if len(p["isr"]) < len(p["replicas"])]:
        message = f"partitions {lacking} have replicas that are not in sync"
        return [
            Finding(
                "warning", name, message, "wait for the brokers to catch up, or find the broker that is down"
            )
        ]
    return [Finding("ok", name, f"{replicas} replica(s) on {brokers} broker(s)")]


def _check_broker(subject: str, found: dict[str, str], brokers: int) -> list[Finding]:
    findings = []
    for key in ("transactional.id.expiration.ms", "producer.id.expiration.ms"):
        value = int(found.get(key) or 0)
        if value >= _DAY_MS:
            findings.append(Finding("ok", subject, f"{key}={value}"))
        else:
            message = f"{key}={value} is less than a day: the fence of an idle partition would be forgotten"
            findings.append(Finding("error", subject, message, f"set {key} to at least {_DAY_MS}"))
    # Epochs are kept in this topic: losing it forgets every fence.
    key = "transaction.state.log.replication.factor"
    value = int(found.get(key) or 0)
    if brokers >= _REPLICAS > value:
        message = f"{key}={value} on {brokers} brokers: the loss of one stops all takeovers"
        findings.append(
            Finding("warning", subject, message, f"give __transaction_state {_REPLICAS} replicas")
        )
    return findings


def _check_transactions(subject: str, found: dict[str, str]) -> Finding:
    """Check how long one client's open transaction may block a partition for everybody."""
    key = "transaction.max.timeout.ms"
    value = int(found.get(key) or 0)
    if value <= _TRANSACTION_MS:
        return Finding("ok", subject, f"{key}={value}")
    message = (
        f"{key}={value}: a client that leaves a transaction open holds back all commands behind it in the partition "
        f"for up to {value / 1000:g} s"
    )
    fix = f"set {key}={_TRANSACTION_MS} on the brokers, unless other clients of the cluster need longer transactions"
    return Finding("warning", subject, message, fix)


def _check_authorizer(subject: str, found: dict[str, str], host: str) -> Finding:
    """Check whether ACLs are enforced. ``host`` is the address that the broker gives to clients."""
    key = "authorizer.class.name"
    if value := found.get(key):
        return Finding("ok", subject, f"ACLs are enforced ({key}={value})")
    if _is_loopback(host):
        return Finding(
            "ok", subject, f"has no authorizer, and can be reached only from its own machine ({host})"
        )
    return Finding(
        "warning",
        subject,
        f"has no authorizer ({key} is empty): anyone who can reach it can write to the topics and delete them",
        "set an authorizer, and grant each client no more than 'waypost topics acls' prints",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def retention_ms(connection: Connection, topic: str) -> int | None:
    """Return how long a topic keeps records, in milliseconds; None if there is no time limit."""
    async with _admin(connection) as admin:
        settings = await _settings(admin, ConfigResourceType.TOPIC, topic)
    found = int(settings.get("retention.ms") or FOR_EVER)
    return None if found == FOR_EVER else found


async def kept_ms(connection: Connection, topic: str) -> int | None:
    """Return how long a record can stay in a topic at the most, in milliseconds; None if time removes nothing.

    A record goes with its segment, once the newest record of that is old enough.
    """
    async with _admin(connection) as admin:
        settings = await _settings(admin, ConfigResourceType.TOPIC, topic)
    retention = int(settings.get("retention.ms") or FOR_EVER)
    if retention == FOR_EVER or "delete" not in settings.get("cleanup.policy", "delete"):
        return None
    segment = int(settings.get("segment.ms") or _SEGMENT_MS)
    return retention + segment + int(settings.get("file.delete.delay.ms") or 0) + _RETENTION_CHECK_MS


def _check_group(subject: str, found: dict[str, str], session_timeout: float) -> Finding:
    """Return whether the group's coordinator would accept a member with this session timeout, in seconds."""
    low, high = (int(found.get(f"group.{end}.session.timeout.ms") or 0) / 1000 for end in ("min", "max"))
    if low <= session_timeout <= high:
        return Finding("ok", subject, f"accepts a session timeout of {session_timeout:g} s")
    return Finding(
        "error",
        subject,
        f"refuses a session timeout of {session_timeout:g} s: it takes {low:g} to {high:g}",
        "set WAYPOST_SESSION_TIMEOUT between them",
    )


async def delete_topic(connection: Connection, name: str) -> None:
    """Remove a topic and all that is in it. UnavailableError if Kafka refuses."""
    async with _admin(connection) as admin:
        answer: Any = await admin.delete_topics([name])
        code = answer.topic_error_codes[0][1]
        if code:
            raise UnavailableError(f"Kafka would not remove {name!r}: {for_code(code).description}")


async def create_scratch_topic(
    connection: Connection, name: str, settings: Mapping[str, str] | None = None
) -> None:
    """A topic of one partition for a test of the cluster."""
    async with _admin(connection) as admin:
        replicas = min(_REPLICAS, await _broker_count(admin, connection.request_timeout))
        await _create(
            admin, NewTopic(name, 1, replicas, topic_configs={**_in_sync(replicas), **(settings or {})})
        )
        await _until_led(admin, [name], connection.request_timeout)


async def _settings(
    admin: AIOKafkaAdminClient, kind: ConfigResourceType, name: str, *, own_only: bool = False
) -> dict[str, str]:
    """Return the settings in effect; with ``own_only``, those that were made on the topic itself."""
    answers: Any = await admin.describe_configs([ConfigResource(kind, name)])
    code, message, _, _, entries = answers[0].resources[0]
    if for_code(code) in _DENIED:
        raise RefusedError(f"this principal may not read the settings of {kind.name.lower()} {name}")
    if code:
        reason = message or for_code(code).description
        raise UnavailableError(f"Kafka would not return the settings of {kind.name.lower()} {name}: {reason}")
    return {entry[0]: entry[1] for entry in entries if not own_only or entry[3] == _OF_THE_TOPIC}


@asynccontextmanager
async def _admin(connection: Connection) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        async with kafka_errors("administering topics"):
            async with asyncio.timeout(connection.start_timeout):
                await admin.start()
            yield admin
    finally:
        await quietly(admin.close(), 1.0)
