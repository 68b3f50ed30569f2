"""Worker, publisher, subscriber and command line on a broker that wants TLS, client certificates or logins."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trustme
from tests.support.cli import CommandLine, environment
from tests.support.deployment import Deployment, deployment
from tests.support.secure_kafka import SecureKafka
from tests.support.timeouts import PATIENCE

from waypost import AccessDeniedError, Publisher, Subscriber
from waypost.kafka.diagnosis import refusal
from waypost_worker.config.kafka import kafka_security
from waypost_worker.config.settings import Settings, SettingsError, load_settings
from waypost_worker.runtime.worker import Worker

pytestmark = pytest.mark.servers

PASSWORD = "a-word-to-pass"
PAGE = Path(__file__).parents[2] / "docs/security.md"
WAYS: dict[str, Callable[[SecureKafka], dict[str, str]]] = {
    "TLS": lambda kafka: kafka.tls(),
    "client certificate": lambda kafka: kafka.tls(kafka.certificate("root")),
    "SCRAM-SHA-256": lambda kafka: kafka.login("root", "root-secret", "SCRAM-SHA-256"),
    "SCRAM-SHA-512": lambda kafka: kafka.login("root", "root-secret"),
    "OAUTHBEARER": lambda kafka: kafka.bearer(kafka.token("root")),
}


def _another_authority(kafka: SecureKafka) -> dict[str, str]:
    path = kafka.directory / "other-ca.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    return kafka.tls() | {"WAYPOST_KAFKA_SSL_CA_FILE": str(path)}


def _another_name(kafka: SecureKafka) -> dict[str, str]:
    by_name = kafka.kafka.address("TLS").replace("127.0.0.1", "localhost")
    return kafka.tls() | {"WAYPOST_BOOTSTRAP_SERVERS": by_name}


def _foreign_certificate(kafka: SecureKafka) -> dict[str, str]:
    return kafka.tls(kafka.certificate("stranger", trustme.CA()))


def _no_certificate(kafka: SecureKafka) -> dict[str, str]:
    return kafka.tls() | {"WAYPOST_BOOTSTRAP_SERVERS": kafka.kafka.address("MUTUAL")}


def _token_of_nobody(kafka: SecureKafka) -> dict[str, str]:
    path = kafka.directory / "nobody.token"
    path.write_text(f"{PASSWORD}.{PASSWORD}.{PASSWORD}")
    return kafka.bearer(path)


WRONG: dict[str, tuple[Callable[[SecureKafka], dict[str, str]], str]] = {
    "unknown authority": (
        _another_authority,
        "certificate that is not trusted here: unable to get local issuer",
    ),
    "another name": (_another_name, "certificate that is not trusted here: Hostname mismatch"),
    "foreign client certificate": (_foreign_certificate, "it may want a client certificate that it trusts"),
    "no client certificate": (_no_certificate, "it may want a client certificate that it trusts"),
    "wrong password": (
        lambda kafka: kafka.login("root", PASSWORD),
        "refused the login: Authentication failed",
    ),
    "unknown user": (lambda kafka: kafka.login("who", PASSWORD), "refused the login: Authentication failed"),
    "expired token": (lambda kafka: kafka.bearer(kafka.token("late", -60)), "late.token expired at 2"),
    "token of nobody": (_token_of_nobody, "does not accept the login with OAUTHBEARER"),
    "mechanism": (lambda kafka: kafka.login("root", PASSWORD, "PLAIN"), "takes no login with PLAIN"),
    "no TLS": (
        lambda kafka: {"WAYPOST_BOOTSTRAP_SERVERS": kafka.kafka.address("TLS")},
        "may not speak PLAINTEXT",
    ),
    "TLS where none is": (
        lambda kafka: kafka.tls() | {"WAYPOST_BOOTSTRAP_SERVERS": kafka.kafka.bootstrap_servers},
        "may not speak SSL on this port",
    ),
}


def loaded(variables: Mapping[str, str]) -> Settings:
    with mock.patch.dict(os.environ, environment(variables), clear=True):
        return load_settings()


@dataclass(frozen=True)
class SecureDeployment:
    """A deployment on the broker, and what reaches its database."""

    kafka: SecureKafka
    world: Deployment

    def variables(self, way: Mapping[str, str]) -> dict[str, str]:
        return {
            "WAYPOST_POSTGRES_DSN": self.world.dsn,
            "WAYPOST_TOPIC_PREFIX": self.world.topics.prefix,
            "WAYPOST_GROUP_ID": self.world.topics.prefix,
            "WAYPOST_REQUEST_TIMEOUT": "3",
            **way,
        }


@pytest.fixture
async def place(
    secure_kafka: SecureKafka, database: str, topic_prefix: str
) -> AsyncIterator[SecureDeployment]:
    async with deployment(secure_kafka.endpoints(database), database, topic_prefix) as world:
        yield SecureDeployment(secure_kafka, world)


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Worker]:
    worker = Worker(settings)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(task, PATIENCE)


@pytest.mark.parametrize("way", WAYS)
async def test_worker_publisher_subscriber_and_command_line_get_in(
    place: SecureDeployment, way: str, tmp_path: Path
) -> None:
    variables = place.variables(WAYS[way](place.kafka))
    settings = loaded(variables)
    options = kafka_security(settings)
    prefix = settings.topic_prefix
    async with (
        working(settings),
        Publisher(settings.bootstrap_servers, topic_prefix=prefix, kafka_options=options) as publisher,
        Subscriber(
            settings.bootstrap_servers, topic_prefix=prefix, from_beginning=True, kafka_options=options
        ) as subscriber,
    ):
        await asyncio.wait_for(publisher.create_and_wait("s", "first", {"way": way}), PATIENCE)
        publisher.create("s", "second", {})
        names: list[str | None] = []
        async with asyncio.timeout(PATIENCE):
            async for event in subscriber:
                names.append(event.name)
                if event.name == "second":
                    break
        assert names == ["first", "second"]
        here = CommandLine(tmp_path, variables)
        done = await asyncio.to_thread(here.run, "publish", "s", "third", "--wait", "-o", "json")
        assert done.code == 0, done.err
    await place.world.balanced()


async def test_tail_gets_in_too(place: SecureDeployment, tmp_path: Path) -> None:
    variables = place.variables(WAYS["SCRAM-SHA-512"](place.kafka))
    place.world.own()
    await place.world.create("s", "seen")
    started = CommandLine(tmp_path, variables).start(
        "tail", "--from-beginning", "--count", "1", "-o", "jsonl"
    )
    try:
        (row,) = (await asyncio.to_thread(started.wait)).rows
    finally:
        started.end()
    assert row["name"] == "seen"


@pytest.mark.parametrize("case", WRONG)
async def test_problems_are_reported_in_one_line_without_the_secret(
    secure_kafka: SecureKafka, case: str, tmp_path: Path
) -> None:
    way, said = WRONG[case]
    variables = {**way(secure_kafka), "WAYPOST_REQUEST_TIMEOUT": "2"}
    found = await asyncio.to_thread(CommandLine(tmp_path, variables).run, "topics", "check")
    assert found.code == 1
    assert said in found.error
    assert PASSWORD not in found.error
    assert "'waypost config show' says where the address comes from" in found.error


@pytest.mark.parametrize("case", ["unknown authority", "wrong password", "expired token", "token of nobody"])
async def test_a_worker_waits_and_says_why_until_it_is_fixed(
    place: SecureDeployment, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    way, said = WRONG[case]
    logged: list[str] = []

    def heard() -> bool:
        logged.append("".join(capsys.readouterr()))
        return said in "".join(logged)

    async with working(loaded(place.variables(way(place.kafka)))):
        await place.world.until(heard)
    assert PASSWORD not in "".join(logged)


async def test_a_worker_continues_with_the_token_that_came_in_time(place: SecureDeployment) -> None:
    token = place.kafka.token("root", -60)
    async with working(loaded(place.variables(place.kafka.bearer(token)))):
        assert "expired" in (
            await refusal(kafka_security(loaded(place.kafka.bearer(token))) | _at(place)) or ""
        )
        place.kafka.token("root")
        await place.world.create("s")
        await place.world.answered(1)


def _at(place: SecureDeployment) -> dict[str, str]:
    return {"bootstrap_servers": place.kafka.kafka.address("LOGIN")}


@pytest.mark.parametrize("case", ["unknown authority", "wrong password", "token of nobody"])
async def test_clients_say_why_they_are_not_let_in(place: SecureDeployment, case: str) -> None:
    way, said = WRONG[case]
    settings = loaded(way(place.kafka))
    options = {**kafka_security(settings), "request_timeout_ms": 2000}
    publisher = Publisher(settings.bootstrap_servers, kafka_options=options)
    await publisher.start()
    try:
        publisher.create("s", "kept", {})
        await place.world.until(lambda: said in (publisher.stats().last_error or ""))
        assert PASSWORD not in (publisher.stats().last_error or "")
        assert publisher.stats().buffered == 1
    finally:
        await publisher.close(timeout=0)
    subscriber = Subscriber(settings.bootstrap_servers, kafka_options=options)
    with pytest.raises(AccessDeniedError, match=r"^Kafka does not accept this client: ") as refused:
        async with asyncio.timeout(PATIENCE):
            await subscriber.start()
    assert said in str(refused.value)
    assert PASSWORD not in str(refused.value)


async def test_no_log_line_of_a_login_holds_the_password(place: SecureDeployment, tmp_path: Path) -> None:
    place.kafka.user("chatty", PASSWORD)
    variables = place.variables(place.kafka.login("chatty", PASSWORD)) | {"WAYPOST_LOG_LEVEL": "debug"}
    started = CommandLine(tmp_path, variables).start("worker")
    try:
        # It may log in and nothing else: no ACL says otherwise.
        await asyncio.to_thread(started.until, "kafka_unavailable")
    finally:
        started.end()
    assert PASSWORD not in "".join(started.wait().err + "".join(started.out))


# Settings that can't be used end a command at once.


def _with(kafka: SecureKafka, **changes: str) -> dict[str, str]:
    return kafka.login("root", "root-secret") | {
        f"WAYPOST_KAFKA_{name}": value for name, value in changes.items()
    }


UNUSABLE: dict[str, tuple[dict[str, str], str]] = {
    "no such file": (
        {"SSL_CA_FILE": "missing.pem"},
        "kafka_ssl_ca_file missing.pem can't be read: No such file",
    ),
    "no certificate": ({"SSL_CA_FILE": "text.pem"}, "kafka_ssl_ca_file text.pem: no PEM certificates"),
    "no key": (
        {"SSL_CERTIFICATE_FILE": "text.pem"},
        "kafka_ssl_certificate_file text.pem (text.pem): no PEM",
    ),
    "key alone": ({"SSL_KEY_FILE": "text.pem"}, "kafka_ssl_key_file needs kafka_ssl_certificate_file"),
    "TLS unused": ({"SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "does not use it; set SASL_SSL"),
    "login unused": ({"SECURITY_PROTOCOL": "SSL"}, "does not use it; set SASL_SSL"),
    "all unused": (
        {"SECURITY_PROTOCOL": "PLAINTEXT"},
        "kafka_security_protocol=PLAINTEXT does not use it",
    ),
    "no mechanism": ({"SASL_MECHANISM": ""}, "needs kafka_sasl_mechanism"),
    "no user": ({"SASL_USERNAME": ""}, "needs kafka_sasl_username and kafka_sasl_password"),
    "no token": ({"SASL_MECHANISM": "OAUTHBEARER"}, "needs kafka_sasl_token_file"),
    "protocol": ({"SECURITY_PROTOCOL": "TLS"}, "WAYPOST_KAFKA_SECURITY_PROTOCOL: Input should be"),
}


@pytest.mark.parametrize("command", [("topics", "check"), ("worker",)])
@pytest.mark.parametrize("case", UNUSABLE)
def test_settings_that_cannot_work_end_a_command_with_code_2(
    secure_kafka: SecureKafka, database: str, case: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    changes, said = UNUSABLE[case]
    (tmp_path / "text.pem").write_text("no certificate\n")
    variables = _with(secure_kafka, **changes) | {"WAYPOST_POSTGRES_DSN": database}
    found = CommandLine(tmp_path, variables).run(*command)
    assert (found.code, found.out) == (2, "")
    assert said in found.error
    assert "root-secret" not in found.error


def test_an_encrypted_key_opens_with_its_password_alone(secure_kafka: SecureKafka, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s

    plain = secure_kafka.certificate("keyed").read_bytes()
    key = s.load_pem_private_key(plain, None)
    path = tmp_path / "key.pem"
    path.write_bytes(
        key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(PASSWORD.encode()))
    )
    way = secure_kafka.tls(secure_kafka.directory / "keyed.pem") | {"WAYPOST_KAFKA_SSL_KEY_FILE": str(path)}
    assert kafka_security(loaded(way | {"WAYPOST_KAFKA_SSL_KEY_PASSWORD": PASSWORD}))["ssl_context"]
    for wrong in ({}, {"WAYPOST_KAFKA_SSL_KEY_PASSWORD": "another"}):
        with pytest.raises(SettingsError, match="password is missing or wrong"):
            kafka_security(loaded(way | wrong))


# The page that says how.


def test_the_page_names_settings_that_there_are() -> None:
    named = set(re.findall(r"WAYPOST_[A-Z_]+[A-Z]", PAGE.read_text()))
    assert len(named) > 10
    assert {name.removeprefix("WAYPOST_").lower() for name in named} <= set(Settings.model_fields)


async def test_a_publisher_made_as_on_the_page_gets_in(place: SecureDeployment) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for written, here in (
        ("/etc/waypost/ca.pem", place.kafka.ca_file),
        ("/run/secrets/token", place.kafka.token("root")),
        ("kafka-1:9093", place.kafka.kafka.address("LOGIN")),
        ("kafka_options=options", f"topic_prefix={place.world.topics.prefix!r}, kafka_options=options"),
    ):
        assert written in block
        block = block.replace(written, str(here))
    names: dict[str, Any] = {}
    exec(block, names)
    async with names["publisher"] as publisher:
        publisher.create("s", "as on the page", {})
        assert await publisher.flush(timeout=PATIENCE) == 0
