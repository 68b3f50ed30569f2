"""The ACLs that ``waypost topics acls`` prints, on a broker that enforces them: enough, and no more."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from tests.integration.test_kafka_security import loaded, working
from tests.support.cli import CommandLine
from tests.support.console import fields_of, form_token_of, running_console
from tests.support.deployment import Deployment, deployment
from tests.support.secure_kafka import SecureKafka
from tests.support.timeouts import PATIENCE

from waypost import AccessDeniedError, DeadLetterError, Event, Publisher, ResultTimeoutError, Subscriber
from waypost_worker.config.kafka import kafka_security
from waypost_worker.config.settings import Settings
from waypost_worker.kafka.acls import ROLES

pytestmark = pytest.mark.servers

_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,
}
_OPERATIONS = {
    "Create": AclOperation.CREATE,
    "Delete": AclOperation.DELETE,
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
# Long enough for a busy machine; what is denied is said at once.
_SECONDS = 20.0


def password(role: str) -> str:
    return f"{role}-secret"


@dataclass(frozen=True)
class Guarded:
    """A deployment whose users have the printed ACLs and nothing else, and a neighbour of another prefix."""

    kafka: SecureKafka
    world: Deployment
    directory: Path

    @property
    def prefix(self) -> str:
        return self.world.topics.prefix

    @property
    def other(self) -> str:
        return f"other-{self.prefix}"

    def variables(self, role: str) -> dict[str, str]:
        return {
            **self.kafka.login(f"{self.prefix}-{role}", password(role)),
            "WAYPOST_POSTGRES_DSN": self.world.dsn,
            "WAYPOST_TOPIC_PREFIX": self.prefix,
            "WAYPOST_GROUP_ID": self.prefix,
        }

    def line(self, role: str) -> CommandLine:
        return CommandLine(self.directory, self.variables(role))

    def client(self, role: str, **more: Any) -> dict[str, Any]:
        """Options of librdkafka, so that nothing of ours decides what is tried."""
        return {
            "bootstrap.servers": self.kafka.kafka.address("LOGIN"),
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.kafka.ca_file),
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": f"{self.prefix}-{role}",
            "sasl.password": password(role),
            "log_level": 0,
            **more,
        }

    def can_write(self, role: str, topic: str) -> bool:
        outcome: list[KafkaError | None] = []
        producer = Producer(self.client(role))
        producer.produce(topic, b"{}", b"s", callback=lambda error, _: outcome.append(error))
        producer.flush(_SECONDS)
        return _allowed(outcome[0])

    def can_read(self, role: str, topic: str) -> bool:
        consumer = Consumer(self.client(role, **{"group.id": "unused", "enable.auto.commit": False}))
        try:
            if not _allowed(consumer.list_topics(topic, _SECONDS).topics[topic].error):
                return False
            consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
            while True:
                message = consumer.poll(_SECONDS)
                assert message is not None, "neither a record nor a refusal"
                error = message.error()
                # It asks for its group, although it does without one.
                if error is None or error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    return _allowed(error)
        finally:
            consumer.close()

    def can_join(self, role: str, group: str, topic: str) -> bool:
        joined: list[object] = []
        consumer = Consumer(
            self.client(
                role, **{"group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
            )
        )
        try:
            consumer.subscribe([topic], on_assign=lambda *_: joined.append(_))
            while not joined:
                message = consumer.poll(_SECONDS)
                if message is not None and not joined:
                    return _allowed(message.error())
                assert message is not None or joined, "neither a member nor refused"
            return True
        finally:
            consumer.close()

    def can_claim(self, role: str, transactional_id: str) -> bool:
        producer = Producer(self.client(role, **{"transactional.id": transactional_id}))
        try:
            producer.init_transactions(_SECONDS)
        except KafkaException as error:
            return _allowed(error.args[0])
        return True


def _allowed(error: KafkaError | None) -> bool:
    if error is None:
        return True
    assert error.code() in DENIED, error
    return False


def grant(kafka: SecureKafka, rows: list[dict[str, Any]]) -> None:
    """Apply what the command printed."""
    bindings = [
        AclBinding(
            _RESOURCES[row["resource"]],
            row["name"],
            ResourcePatternType.PREFIXED if row["pattern"] == "prefixed" else ResourcePatternType.LITERAL,
            row["principal"],
            "*",
            _OPERATIONS[operation],
            AclPermissionType.ALLOW,
        )
        for row in rows
        for operation in row["operations"]
    ]
    for done in kafka.admin.create_acls(bindings).values():
        done.result(_SECONDS)


@pytest.fixture
async def guarded(
    secure_kafka: SecureKafka, database: str, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Guarded]:
    async with deployment(secure_kafka.endpoints(database), database, topic_prefix) as world:
        made = Guarded(secure_kafka, world, tmp_path)
        for role in ROLES:
            secure_kafka.user(f"{topic_prefix}-{role}", password(role))
        neighbours = [NewTopic(f"{made.other}.{kind}", 1, 1) for kind in ("commands", "results")]
        for done in secure_kafka.admin.create_topics(neighbours).values():
            done.result(_SECONDS)
        flags = [word for role in ROLES for word in (f"--{role}", f"User:{topic_prefix}-{role}")]
        printed = await asyncio.to_thread(
            made.line("operator").run,
            *("topics", "acls", "--subscriber-groups", f"{topic_prefix}-sub", *flags, "-o", "json"),
        )
        await asyncio.to_thread(grant, secure_kafka, printed.json)
        yield made


async def test_clients_without_a_permission_say_which_one_it_is(guarded: Guarded) -> None:
    prefix = guarded.prefix
    agent, subscriber = (loaded(guarded.variables(role)) for role in ("agent", "subscriber"))

    def subscribing(settings: Settings, **options: Any) -> Subscriber:
        security = kafka_security(settings)
        return Subscriber(settings.bootstrap_servers, topic_prefix=prefix, kafka_options=security, **options)

    async def handler(_: Event) -> None:
        raise AssertionError("nothing is published")

    not_ours = f"{guarded.other}.commands"
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(
            AccessDeniedError, match=rf"let this client read the topic '{prefix}\.results'"
        ) as denied:
            await subscribing(agent).start()
        assert "'waypost topics acls' prints the permissions" in str(denied.value)
        with pytest.raises(AccessDeniedError, match="let this client join the group 'strangers'"):
            await subscribing(subscriber, group="strangers").run(handler)
        with pytest.raises(DeadLetterError, match="can't be used"):
            await subscribing(subscriber, group=f"{prefix}-sub-1").run(handler, dead_letters=not_ours)

    options: Any = {"topic_prefix": guarded.other, "kafka_options": kafka_security(agent)}
    async with Publisher(agent.bootstrap_servers, **options) as publisher:
        publisher.create("s", "kept", {})
        refused = f"TopicAuthorizationFailedError: {not_ours}"
        await guarded.world.until(lambda: refused in (publisher.stats().last_error or ""))
        assert publisher.stats().buffered == 1
        assert await publisher.close(0) == 1

    options["topic_prefix"] = prefix
    async with Publisher(agent.bootstrap_servers, **options) as publisher:
        for timeout in (1, 2, 4, 8, 16):  # until the refusal comes first, on a busy machine, too
            with pytest.raises(ResultTimeoutError) as late:
                await publisher.create_and_wait("s", "n", {}, timeout=timeout)
            if "results can't be read" in str(late.value):
                break
        assert re.search(rf"results can't be read: .*{prefix}\.results", str(late.value))


async def test_all_get_their_work_done_with_exactly_these(guarded: Guarded) -> None:
    operator = guarded.line("operator")
    made = await asyncio.to_thread(
        operator.run, "topics", "create", "--topic-prefix", f"{guarded.prefix}.more"
    )
    assert made.code == 0, made.err
    checked = await asyncio.to_thread(operator.run, "topics", "check", "-o", "json")
    assert checked.code == 0, checked.out
    worker, agent, subscriber = (
        loaded(guarded.variables(role)) for role in ("worker", "agent", "subscriber")
    )
    async with (
        working(worker),
        Publisher(
            agent.bootstrap_servers, topic_prefix=guarded.prefix, kafka_options=kafka_security(agent)
        ) as publisher,
        Subscriber(
            subscriber.bootstrap_servers,
            group=f"{guarded.prefix}-sub-1",
            topic_prefix=guarded.prefix,
            from_beginning=True,
            kafka_options=kafka_security(subscriber),
        ) as events,
    ):
        ids = [publisher.create("s", f"n{number}", {}) for number in range(20)]
        names: list[str | None] = []
        async with asyncio.timeout(60):
            async for event in events:
                names.append(event.name)
                if len(names) == len(ids):
                    break
        assert names == [f"n{number}" for number in range(20)]
        by_hand = await asyncio.to_thread(operator.run, "publish", "s", "by hand", "--wait")
        assert by_hand.code == 0, by_hand.err
        await asyncio.to_thread(pin_and_prove_in_the_console, guarded.line("console"))
    looked = await asyncio.to_thread(operator.run, "doctor", "-o", "json")
    # The tests' Postgres does not flush to disk, which has nothing to do with this.
    errors = [row for row in looked.json if row["level"] == "error" and row["subject"] != "postgres"]
    assert errors == []
    assert {row["level"] for row in looked.json if row["subject"] == "fencing"} == {"ok"}
    await guarded.world.balanced()


def pin_and_prove_in_the_console(line: CommandLine) -> None:
    with running_console(line) as console, console.client() as client:
        health = client.get("/api/v1/health").json()
        assert (health["workers"], health["lag"]) == (1, 0)
        assert [health[f"{one}_error"] for one in ("kafka", "workers", "live")] == [None, None, None]
        findings = client.get("/health").text
        assert "cleanup.policy=delete" in findings
        path = "/sessions/s/pin"
        form = fields_of(client.get(path, params={"checkpoint": "1"}).text)
        assert "Pinned" in client.post(path, data=form, follow_redirects=True).text
        path = "/sessions/s/verify"
        token = form_token_of(client.get(path).text)
        assert "✓ Equal" in client.post(path, data={"form_token": token}, follow_redirects=True).text


async def test_a_worker_may_check_its_topics_and_logs_what_it_may_not_check(guarded: Guarded) -> None:
    """As the manifests do before they start a worker, with its rights."""
    checked = await asyncio.to_thread(guarded.line("worker").run, "topics", "check", "-o", "json")
    assert checked.code == 0, checked.out
    levels = {(row["subject"], row["message"]): row["level"] for row in checked.json}
    for topic in (guarded.world.topics.commands, guarded.world.topics.results):
        assert levels[topic, "cleanup.policy=delete"] == "ok"
    assert [row for row in checked.json if row["level"] != "ok"] == [
        {
            "level": "warning",
            "subject": "broker 1",
            "message": "its settings were not checked: this principal may not read them",
            "fix": "give it DescribeConfigs on the cluster",
            "mend": "give it DescribeConfigs on the cluster",
        }
    ]


async def test_none_may_do_what_is_not_its_work(guarded: Guarded) -> None:
    commands, results = guarded.world.topics.commands, guarded.world.topics.results
    guarded.world.own()
    await guarded.world.create("s")
    await guarded.world.answered(1)

    def attempts() -> dict[str, bool]:
        found = {}
        for role in ("agent", "subscriber", "worker", "console"):
            found[f"{role} writes commands"] = guarded.can_write(role, commands)
            found[f"{role} reads results"] = guarded.can_read(role, results)
            found[f"{role} reads commands"] = guarded.can_read(role, commands)
            found[f"{role} claims an epoch"] = guarded.can_claim(role, f"{guarded.prefix}.99")
        found["agent writes results"] = guarded.can_write("agent", results)
        found["console writes results"] = guarded.can_write("console", results)
        found["console joins the workers"] = guarded.can_join("console", guarded.prefix, results)
        found["subscriber writes results"] = guarded.can_write("subscriber", results)
        found["subscriber joins the workers"] = guarded.can_join("subscriber", guarded.prefix, results)
        return found

    found = await asyncio.to_thread(attempts)
    assert {name for name, allowed in found.items() if allowed} == {
        "agent writes commands",
        "subscriber reads results",
        "worker reads commands",
        "worker reads results",
        "worker claims an epoch",
        "console writes commands",
        "console reads results",
        "console reads commands",
    }


async def test_another_prefix_is_closed_to_all(guarded: Guarded) -> None:
    def attempts() -> dict[str, bool]:
        found = {}
        for role in ROLES:
            for topic in ("commands", "results"):
                found[f"{role} writes {topic}"] = guarded.can_write(role, f"{guarded.other}.{topic}")
                found[f"{role} reads {topic}"] = guarded.can_read(role, f"{guarded.other}.{topic}")
            found[f"{role} claims an epoch"] = guarded.can_claim(role, f"{guarded.other}.0")
        return found

    found = await asyncio.to_thread(attempts)
    assert not [name for name, allowed in found.items() if allowed]


async def test_a_worker_without_its_acls_says_what_is_missing(
    guarded: Guarded, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: list[str] = []

    def heard() -> bool:
        logged.append("".join(capsys.readouterr()))
        return "does not let this worker see the topic" in "".join(logged)

    async with working(loaded(guarded.variables("subscriber"))):
        try:
            await guarded.world.until(heard)
        except TimeoutError:
            pytest.fail(f"the worker said only: {''.join(logged)}")
    assert "'waypost topics acls worker' prints" in "".join(logged)
