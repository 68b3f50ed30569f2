"""Refused commands: published once more, or dropped."""

import asyncio
import json
import signal
import uuid
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer
from tests.support.cli import CommandLine
from tests.support.kill_points import until_blocked
from tests.support.worker_deployment import commands_in, create, line, own, own_worker, session, shared

from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of

__all__ = ["line", "own", "own_worker", "session", "shared"]
CREATE = EventType.CREATE.wire


def send(line: CommandLine, session: str, body: bytes, *, astray: bool = False, kind: bytes = CREATE) -> str:
    """Publish as another client would, to the wrong partition if ``astray``; the command id."""
    identifier = str(uuid.uuid4())
    partition = (partition_of(session, 2) + astray) % 2

    async def produce() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=line.settings["WAYPOST_BOOTSTRAP_SERVERS"])
        await producer.start()
        try:
            await producer.send_and_wait(
                f"{line.settings['WAYPOST_TOPIC_PREFIX']}.commands",
                body,
                session.encode(),
                partition=partition,
                headers=[
                    *command_headers(identifier, b"/test", kind, b"2026-11-24T08:24:59Z"),
                    ("odd", b"\xff"),
                ],
            )
        finally:
            await producer.stop()

    asyncio.run(produce())
    return identifier


def refused(line: CommandLine, session: str, count: int) -> list[dict[str, str]]:
    """The refused commands of a session, once there are so many."""
    while True:
        rows: list[dict[str, str]] = line.run("rejected", "list", "--session", session, "-o", "jsonl").rows
        assert len(rows) <= count
        if len(rows) == count:
            return rows


def test_a_misrouted_command_arrives_after_a_retry_with_its_own_id(line: CommandLine, session: str) -> None:
    identifier = send(line, session, b'{"name": "n", "data": {"x": 1}}', astray=True)
    (row,) = refused(line, session, 1)
    assert (row["code"], row["command_id"]) == ("misrouted", identifier)
    retry = ("rejected", "retry", "--session", session, "--code", "misrouted")
    (plan,) = line.run(*retry, "--dry-run", "-o", "json").json
    assert (plan["outcome"], plan["partition"]) == ("would be published", partition_of(session, 2))
    assert refused(line, session, 1) == [row]

    done = line.run(*retry, "-o", "json")
    assert (done.code, done.err) == (0, "1 accepted\n")
    assert (done.json[0]["place"], done.json[0]["outcome"]) == (row["place"], "accepted")
    (made,) = line.run("session", "show", session, "-o", "json").json
    assert made["timestamp"].startswith("2026-11-24T08:24:59")
    refused(line, session, 0)
    none = line.run(*retry)
    assert (none.code, none.err) == (0, "none matches\n")


def test_a_retry_of_what_was_accepted_meanwhile_changes_nothing(line: CommandLine, session: str) -> None:
    identifier = send(line, session, b'{"name": "n", "data": {}}', astray=True)
    (row,) = refused(line, session, 1)
    # As if a first retry had been killed between the publishing and the end.
    body = json.dumps({"name": "n", "data": {}}).encode()
    from_id = command_headers(identifier, b"/test", CREATE, b"2026-11-24T08:24:59Z")

    async def produce() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=line.settings["WAYPOST_BOOTSTRAP_SERVERS"])
        await producer.start()
        topic = f"{line.settings['WAYPOST_TOPIC_PREFIX']}.commands"
        place = partition_of(session, 2)
        await producer.send_and_wait(topic, body, session.encode(), partition=place, headers=from_id)
        await producer.stop()

    asyncio.run(produce())
    assert line.run("rejected", "retry", row["place"]).code == 0
    assert len(line.run("session", "show", session, "-o", "json").json) == 1
    refused(line, session, 0)


def test_what_cannot_be_read_is_left_and_can_be_fixed(line: CommandLine, session: str) -> None:
    send(line, session, b'{"name": "n", "data": 7}')
    (row,) = refused(line, session, 1)
    left = line.run("rejected", "retry", row["place"], "-o", "json")
    assert (left.code, left.json[0]["outcome"]) == (1, "would be refused")
    assert left.json[0]["code"] == "invalid-body"
    assert refused(line, session, 1) == [row]
    fixed = line.directory / "fixed.json"
    fixed.write_text('{"name": "n", "data": {"x": 7}}')
    done = line.run("rejected", "retry", row["place"], "--value", str(fixed))
    assert done.code == 0
    assert "accepted" in done.out
    assert line.run("session", "show", f"{session}:1", "-o", "json").json["data"] == {"x": 7}


def test_a_command_that_is_refused_again_is_listed_once(line: CommandLine, session: str) -> None:
    body = json.dumps({"checkpoint_id": f"{session}:1"}).encode()
    send(line, session, body, kind=EventType.PIN.wire)
    (row,) = refused(line, session, 1)
    again = line.run("rejected", "retry", "--session", session, "-o", "json")
    assert (again.code, again.json[0]["outcome"]) == (1, "refused again")
    (new,) = refused(line, session, 1)
    assert new["place"] == again.json[0]["new_place"] != row["place"]
    create(line, session, "a")
    assert line.run("rejected", "retry", "--session", session).code == 0
    assert line.run("session", "show", f"{session}:1", "-o", "json").json["pinned"] is True


def test_a_retry_of_many_takes_each_once(line: CommandLine, session: str) -> None:
    body = json.dumps({"checkpoint_id": f"{session}:1"})
    lines = [json.dumps({"session": session, "type": "pin", "body": json.loads(body)})] * 450
    line.run("publish", "--stdin", stdin="\n".join(lines))
    everything = ("rejected", "list", "--session", session, "--limit", "1000", "-o", "jsonl")
    while len(line.run(*everything).rows) < 450:
        pass
    ended = line.run("rejected", "retry", "--session", session)
    assert ended.err == "450 refused again\n"
    assert len(line.run(*everything).rows) == 450


def test_without_a_worker_the_list_stays_and_a_second_start_ends_well(own: CommandLine, session: str) -> None:
    worker = own.start("worker")
    try:
        worker.until("worker_ready")
        send(own, session, b'{"name": "n", "data": {}}', astray=True)
        refused(own, session, 1)
        worker.stop()
    finally:
        worker.end()
    ended = own.run("rejected", "retry", "--all", "--timeout", "1")
    assert ended.code == 1
    assert "Run this command again" in ended.error
    refused(own, session, 1)
    killed = own.start("rejected", "retry", "--all", "--timeout", "60")
    try:
        while commands_in(own) < 3:
            assert killed.process.poll() is None
        killed.stop(signal.SIGKILL)
    finally:
        killed.end()
    refused(own, session, 1)
    worker = own.start("worker")
    try:
        worker.until("worker_ready")
        assert own.run("rejected", "retry", "--all").err == "1 accepted\n"
        assert len(own.run("session", "show", session, "-o", "json").json) == 1
    finally:
        worker.end()


def test_a_purge_removes_what_matches_and_nothing_else(line: CommandLine, session: str) -> None:
    send(line, session, b"nope")
    send(line, session, b'{"name": "n", "data": {}}', astray=True)
    rows = {row["code"]: row for row in refused(line, session, 2)}
    mine = ("rejected", "purge", "--session", session)
    assert line.run(*mine, "--older-than", "1h", "--yes", "-o", "json").json == {"dropped": 0}
    (plan,) = line.run(*mine, "--code", "misrouted", "--dry-run", "-o", "json").json
    assert (plan["code"], plan["commands"]) == ("misrouted", 1)
    assert len(refused(line, session, 2)) == 2
    assert line.run(*mine, "--code", "misrouted", "--yes", "-o", "json").json == {"dropped": 1}
    assert refused(line, session, 1)[0]["code"] == "invalid-body"
    place = rows["invalid-body"]["place"]
    assert line.run("rejected", "purge", place, "-o", "json").json == {"dropped": 1}
    refused(line, session, 0)


async def test_a_purge_that_is_killed_in_the_middle_is_finished_by_the_next(own: CommandLine) -> None:
    connection: Any = await asyncpg.connect(own.settings["WAYPOST_POSTGRES_DSN"])
    await connection.execute(
        'insert into waypost.rejected_commands (partition, "offset", code, message, headers, recorded_at) '
        "select 0, n, case when n < 2500 then 'invalid-body' else 'misrouted' end, '', '[]', now() "
        "from generate_series(0, 2509) n"
    )
    left = "select count(*) from waypost.rejected_commands where code = $1"
    purge = ("rejected", "purge", "--code", "invalid-body", "--yes", "-o", "json")
    holding = connection.transaction()
    await holding.start()
    await connection.execute('select from waypost.rejected_commands where "offset" = 2499 for update')
    killed = own.start(*purge)
    try:
        await until_blocked(connection)
        await asyncio.to_thread(killed.stop, signal.SIGKILL)
        assert 0 < await connection.fetchval(left, "invalid-body") < 2500
    finally:
        killed.end()
        await holding.rollback()
    again = await asyncio.to_thread(own.run, *purge)
    assert again.code == 0, again.err
    assert await connection.fetchval(left, "invalid-body") == 0
    assert await connection.fetchval(left, "misrouted") == 10
    await connection.close()


def test_of_a_large_value_people_see_the_beginning_and_programs_everything(
    line: CommandLine, session: str, tmp_path: Path
) -> None:
    """An earlier version kept values of any size, and to lay out megabytes as a table took minutes."""
    identifier = send(line, session, b'{"name": 1}')
    (row,) = refused(line, session, 1)
    large = b'{"name":"\x1b[31m' + b"y" * 8_000_000 + b'"}'
    headers = json.dumps([[f"h{number}", "v" * 100] for number in range(1000)])

    async def enlarge() -> None:
        connection = await asyncpg.connect(line.settings["WAYPOST_POSTGRES_DSN"])
        await connection.execute(
            "update waypost.rejected_commands set value = $1, headers = $2 where command_id = $3",
            *(large, headers.encode(), identifier),
        )
        await connection.close()

    asyncio.run(enlarge())
    shown = line.run("rejected", "show", row["place"])
    assert shown.code == 0
    assert len(shown.out) < 20_000
    assert '{"name":"\\x1b[31myyyy' in shown.out
    assert "the first 4,096 of 8,000,016 bytes of the value: --full prints all of it" in shown.err
    assert "the first 4,096 characters of the headers" in shown.err
    file = tmp_path / "value"
    written = line.run("rejected", "show", row["place"], "--value-file", str(file))
    assert (written.code, len(written.out) < 20_000) == (0, True)
    assert file.read_bytes() == large
    again = line.run("rejected", "show", row["place"], "--value-file", str(file))
    assert (again.code, "can't be written: File exists. Nothing was shown" in again.error) == (1, True)
    assert len(line.run("rejected", "show", row["place"], "--full").out) > len(large)
    assert line.run("rejected", "show", row["place"], "-o", "json").json["value"] == large.decode()
    line.run("rejected", "purge", row["place"], "--yes")
