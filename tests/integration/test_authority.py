"""Who may configure partitions, on real servers: before and after an authority is named, and with each key."""

import asyncio
import uuid

import pytest
from aiokafka import AIOKafkaProducer
from tests.support.cli import CommandLine, Started
from tests.support.signing import signed_headers
from tests.support.worker_deployment import commands_in, own, own_worker

from waypost import Reader
from waypost.wire.event_types import EventType

__all__ = ["own", "own_worker"]

PARTITIONS = 2
CONFIGURE = EventType.CONFIGURE_DEFAULTS.wire


def new_key(line: CommandLine, name: str) -> str:
    """Make a key file; its public key."""
    made = line.run("authority", "create-key", name, "-o", "json")
    assert made.code == 0, made
    return str(made.json["public_key"])


def keys(line: CommandLine) -> list[str | None]:
    return [row["key"] for row in line.run("authority", "show", "-o", "jsonl").rows]


def by_an_agent(line: CommandLine, body: bytes, headers: list[tuple[str, bytes]] | None = None) -> set[str]:
    """Publish what any agent can to each partition; what became of it."""

    async def publish() -> list[tuple[int, int]]:
        producer = AIOKafkaProducer(bootstrap_servers=line.settings["WAYPOST_BOOTSTRAP_SERVERS"])
        await producer.start()
        landed = []
        try:
            for partition in range(PARTITIONS):
                own = headers or signed_headers(None, partition, CONFIGURE, str(uuid.uuid4()), 0, body)
                topic = f"{line.settings['WAYPOST_TOPIC_PREFIX']}.commands"
                sent = await producer.send_and_wait(topic, body, partition=partition, headers=own)
                landed.append((partition, sent.offset))
        finally:
            await producer.stop()
        async with Reader(line.settings["WAYPOST_POSTGRES_DSN"]) as reader:
            for token in landed:
                await reader.wait_for(token, timeout=60)
        return landed

    places = asyncio.run(publish())
    rejected = {row["place"]: row["code"] for row in line.run("rejected", "list", "-o", "jsonl").rows}
    return {rejected.get(f"{partition}/{offset}", "accepted") for partition, offset in places}


def checked(line: CommandLine) -> None:
    """Postgres is the fold of the log, and a replay comes to the same."""
    assert line.run("verify", "--strict", "-o", "json").code == 0
    replayed = line.run("replay", "--schema", "again", "-o", "json")
    assert replayed.code == 0, replayed
    assert line.run("verify", "--schema", "again", "-o", "json").code == 0


def test_an_agent_may_configure_partitions_until_there_is_an_authority(
    own: CommandLine, own_worker: Started
) -> None:
    assert by_an_agent(own, b'{"max_checkpoints": 3}') == {"accepted"}
    (about,) = [row for row in own.run("doctor", "-o", "jsonl").rows if row["subject"] == "authority"]
    assert (about["level"], about["message"]) == (
        "ok",
        "anybody may configure the partitions of a dev server",
    )
    public = new_key(own, "one.pem")
    assert own.run("authority", "set", "one.pem").code == 0
    assert keys(own) == [public] * PARTITIONS
    assert by_an_agent(own, b'{"max_checkpoints": 2}') == {"unauthorized"}
    (about,) = [row for row in own.run("doctor", "-o", "jsonl").rows if row["subject"] == "authority"]
    assert about["level"] == "ok"
    # The operator can; and hears at once what would be rejected.
    signed = own.run("defaults", "--max-checkpoints", "9", "--authority-key", "one.pem", "-o", "json")
    assert (signed.code, signed.json["partitions"]) == (0, PARTITIONS), signed
    before = commands_in(own)
    unsigned = own.run("defaults", "--max-checkpoints", "8")
    assert unsigned.code == 2
    assert "have an authority, which must sign the command. Nothing was sent" in unsigned.error
    assert commands_in(own) == before
    checked(own)


def test_a_key_is_replaced_and_removed_with_the_current_one_only(
    own: CommandLine, own_worker: Started
) -> None:
    one, other = new_key(own, "one.pem"), new_key(own, "other.pem")
    assert own.run("authority", "set", "one.pem").code == 0
    wrong = own.run("authority", "set", "other.pem", "--authority-key", "other.pem")
    assert (wrong.code, keys(own)) == (1, [one] * PARTITIONS)
    assert "is not that of the authority of partition 0, 1. Nothing was sent" in wrong.error
    assert own.run("authority", "set", "other.pem", "--authority-key", "one.pem").code == 0
    assert keys(own) == [other] * PARTITIONS
    assert own.run("authority", "remove", "--authority-key", "one.pem").code == 1
    assert own.run("authority", "remove", "--authority-key", "other.pem").code == 0
    assert keys(own) == [None] * PARTITIONS
    assert by_an_agent(own, b'{"max_checkpoints": 2}') == {"accepted"}
    checked(own)


def test_topics_with_a_key_have_an_authority_before_anybody_can_publish(
    own: CommandLine,
) -> None:
    public = new_key(own, "one.pem")
    late = own.run("topics", "create", "--authority-key", "one.pem", "--skip-zombie-test")
    assert late.code == 1
    assert "already exists" in late.error
    prefix = f"{own.settings['WAYPOST_TOPIC_PREFIX']}-new"
    settings = {"WAYPOST_TOPIC_PREFIX": prefix, "WAYPOST_GROUP_ID": prefix}
    new = CommandLine(own.directory, {**own.settings, **settings})
    made = new.run(
        *("topics", "create", "--partitions", "2", "--authority-key", "one.pem", "--skip-zombie-test")
    )
    assert made.code == 0, made
    worker = new.start("worker")
    try:
        worker.until("worker_ready")
        assert by_an_agent(new, b'{"max_checkpoints": 2}') == {"unauthorized"}
        assert keys(new) == [public] * PARTITIONS
        checked(new)
    finally:
        worker.end()


@pytest.mark.parametrize("replaced", [True, False])
def test_adopted_topics_keep_their_authority_or_get_another(
    own: CommandLine, own_worker: Started, replaced: bool
) -> None:
    """Who lost a key, or was not the first to set one, gets out this way."""
    lost = new_key(own, "lost.pem")
    assert own.run("authority", "set", "lost.pem").code == 0
    own_worker.end()
    public = new_key(own, "found.pem")
    prefix = f"{own.settings['WAYPOST_TOPIC_PREFIX']}-new"
    settings = {"WAYPOST_TOPIC_PREFIX": prefix, "WAYPOST_GROUP_ID": prefix}
    new = CommandLine(own.directory, {**own.settings, **settings})
    assert new.run("topics", "create", "--partitions", "2", "--skip-zombie-test").code == 0
    other = ("--authority-key", "found.pem") if replaced else ()
    assert new.run("topics", "adopt", *other, "--dry-run").code == 0
    assert new.run("topics", "adopt", *other).code == 0
    worker = new.start("worker")
    try:
        worker.until("worker_ready")
        assert by_an_agent(new, b'{"max_checkpoints": 2}') == {"unauthorized"}
        assert keys(new) == [public if replaced else lost] * PARTITIONS
        name = "found.pem" if replaced else "lost.pem"
        assert new.run("defaults", "--max-checkpoints", "9", "--authority-key", name).code == 0
    finally:
        worker.end()


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_key_file_that_others_may_read_signs_nothing(own: CommandLine, mode: int) -> None:
    new_key(own, "one.pem")
    path = own.directory / "one.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(mode)
    refused = own.run("defaults", "--max-checkpoints", "9", "--authority-key", "one.pem")
    assert refused.code == 2
    assert "is open to other users of this machine. Nothing was signed. Run: chmod 600" in refused.error


def test_a_key_file_is_never_overwritten(own: CommandLine) -> None:
    new_key(own, "one.pem")
    before = (own.directory / "one.pem").read_bytes()
    again = own.run("authority", "create-key", "one.pem")
    assert again.code == 1
    assert "already exists" in again.error
    assert (own.directory / "one.pem").read_bytes() == before


def test_invalid_keys_are_errors(own: CommandLine) -> None:
    path = own.directory / "text.pem"
    path.write_text("-----BEGIN PRIVATE KEY-----\nnothing\n-----END PRIVATE KEY-----\n")
    path.chmod(0o600)
    refused = own.run("authority", "set", "text.pem")
    assert (refused.code, "contains no Ed25519 key" in refused.error) == (2, True)
