"""``waypost verify``: equal where nothing happened, and every kind of damage found, whichever row it is in."""

import asyncio
import signal

import pytest
from tests.support.cli import CommandLine
from tests.support.database_state import COLUMNS
from tests.support.deployment import Deployment
from tests.support.recovery import PARTITIONS, execute, line, live, published, run, worked

from waypost_worker.partition import kept

__all__ = ["line", "live"]


async def test_nothing_differs_while_workers_keep_running(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=600)
    for partition in range(PARTITIONS):
        live.own(partition)
    sent = 600
    for seed in (2, 3, 4):
        sent += await published(live, seed=seed, count=200)
        found = await run(line, "verify", "-o", "json")
        assert (found.code, found.json["equal"]) == (0, True), found.json
    await live.answered(sent)
    found = await run(line, "verify", "-o", "json")
    assert (found.code, found.json["differences"]) == (0, [])
    assert sum(row["next_offset"] for row in found.json["partitions"]) == sent
    assert sum(row["checkpoints"] for row in found.json["partitions"]) > 100
    assert all(row["rejected_commands"] for row in found.json["partitions"])


async def test_two_databases_of_one_log_share_their_fingerprints(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=600)
    assert (await run(line, "replay", "--schema", "side")).code == 0
    mine = (await run(line, "verify", "-o", "json")).json["partitions"]
    other = (await run(line, "verify", "-o", "json", "--schema", "side")).json["partitions"]
    assert [row["fingerprint"] for row in mine] == [row["fingerprint"] for row in other]
    await execute(live.dsn, "update side.checkpoints set pinned = not pinned")
    changed = (await run(line, "verify", "-o", "json", "--schema", "side")).json["partitions"]
    assert all(one["fingerprint"] != row["fingerprint"] for one, row in zip(mine, changed, strict=True))


ONE = "(select session_id from waypost.checkpoints order by session_id limit 1)"
NUMBER = f"(select max(number) from waypost.checkpoints where session_id = {ONE})"
A_CHECKPOINT = f"session_id = {ONE} and number = {NUMBER}"
A_REJECTED = "ctid = (select ctid from waypost.rejected_commands limit 1)"
A_COMMAND = "ctid = (select ctid from waypost.recent_commands limit 1)"
DAMAGE = {
    "a flipped byte of data": (
        f"update waypost.checkpoints set data = set_byte(data, 2, get_byte(data, 2) # 1) where {A_CHECKPOINT}",
        "checkpoints",
        "Postgres",
    ),
    "metadata": (
        f"""update waypost.checkpoints set metadata = '{{"m": 1}}' where {A_CHECKPOINT}""",
        "checkpoints",
        "metadata differs at m, Postgres has 1",
    ),
    "a name": (
        f"update waypost.checkpoints set name = 'x' where {A_CHECKPOINT}",
        "checkpoints",
        "name is 'x'",
    ),
    "a pin": (
        f"update waypost.checkpoints set pinned = not pinned where {A_CHECKPOINT}",
        "checkpoints",
        "pinned is",
    ),
    "a time": (
        f"update waypost.checkpoints set taken_at = taken_at + interval '1 us' where {A_CHECKPOINT}",
        "checkpoints",
        "taken_at is",
    ),
    "a missing checkpoint": (
        f"delete from waypost.checkpoints where {A_CHECKPOINT}",
        "checkpoints",
        "the row is missing",
    ),
    "an extra checkpoint": (
        "insert into waypost.checkpoints select session_id, 99999, imported_id, name, taken_at, recorded_at, data, "
        f"metadata, pinned, command_id, position from waypost.checkpoints where {A_CHECKPOINT}",
        "checkpoints",
        "should not be",
    ),
    "a checkpoint of no session": (
        "insert into waypost.checkpoints select 'nobody', number, imported_id, name, taken_at, recorded_at, data, "
        f"metadata, pinned, command_id, position from waypost.checkpoints where {A_CHECKPOINT}",
        "checkpoints",
        "belongs to no session",
    ),
    "a counter": (
        f"update waypost.sessions set counter = counter + 1 where session_id = {ONE}",
        "sessions",
        "counter is",
    ),
    "a policy": (
        """update waypost.sessions set policy = '{"max_checkpoints": 9, "compress_after": 1, "keep_recent": 1, """
        f""""max_age": null}}' where session_id = {ONE}""",
        "sessions",
        "policy is",
    ),
    "a session of another partition": (
        f"update waypost.sessions set partition = (partition + 1) % {PARTITIONS} where session_id = {ONE}",
        "sessions",
        "should not be",
    ),
    "an extra session": (
        "insert into waypost.sessions select 'nobody', partition, counter, policy, 0, first_recorded_at, "
        f"last_recorded_at from waypost.sessions where session_id = {ONE}",
        "sessions",
        "no accepted command",
    ),
    "a forgotten command": (
        f"delete from waypost.recent_commands where {A_COMMAND}",
        "recent_commands",
        "the row is missing",
    ),
    "another command id": (
        f"update waypost.recent_commands set command_id = 'x' where {A_COMMAND}",
        "recent_commands",
        "command_id is 'x'",
    ),
    "a refused command's value": (
        rf"update waypost.rejected_commands set value = '\x00' where {A_REJECTED}",
        "rejected_commands",
        "are not those of the record",
    ),
    "an extra refused command": (
        'insert into waypost.rejected_commands select partition, "offset" + 100000, session_id, command_id, code, '
        f"message, key, value, headers, recorded_at from waypost.rejected_commands where {A_REJECTED}",
        "rejected_commands",
        "refuses no command there",
    ),
    "the default policy": (
        """update waypost.partitions set default_policy = '{"max_checkpoints": 9, "compress_after": 1, """
        """"keep_recent": 1, "max_age": null}' where partition = 1""",
        "partitions",
        "default_policy is",
    ),
    "the authority": (
        """update waypost.partitions set authority = '{"key": null, "signed_at": 1, "skipped": [7]}' """
        "where partition = 1",
        "partitions",
        "authority is",
    ),
    "which refused commands are kept": (
        "update waypost.partitions set rejected_window = jsonb_set(rejected_window, '{parts}', '[[9, 0]]') "
        "where partition = 1",
        "partitions",
        "rejected_window is",
    ),
    "the anchor": (
        r"update waypost.partitions set anchor = '\x00' where partition = 1",
        "partitions",
        "anchor is 00",
    ),
}
POSITION = ", authority, epoch, emitted, results_offset, producer_id, producer_epoch, rejected_window"


async def test_a_missing_oldest_rejected_command_is_found(
    live: Deployment, line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether all sessions are looked at or a share, and older ones that made room are not."""
    monkeypatch.setattr(kept, "PARTS", 2)
    monkeypatch.setattr(kept, "PART_ROWS", 3)
    await worked(live, count=900)
    rows = await live.pool.fetch(
        'select r.partition, min(r."offset") as oldest, count(*) as kept from waypost.rejected_commands r '
        "join waypost.partitions p using (partition) where (rejected_window #>> '{parts,0,0}')::bigint > 0 group by 1"
    )
    assert rows, "nothing made room"
    assert all(3 < row["kept"] <= 6 for row in rows), rows
    ways = [(), ("--sample", "0.9999999")]
    for way in ways:
        assert (await run(line, "verify", "--strict", *way)).code == 0
    place = f'partition = {rows[0]["partition"]} and "offset" = {rows[0]["oldest"]}'
    await execute(live.dsn, f"delete from waypost.rejected_commands where {place}")
    for way in ways:
        found = await run(line, "verify", "--strict", "-o", "json", *way)
        assert [one["key"] for one in found.json["differences"]] == [
            f"{rows[0]['partition']}/{rows[0]['oldest']}"
        ]
        assert (await run(line, "verify", *way)).code == 0


async def test_every_damage_is_found_and_reported(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=400)
    tables = {table for _, table, _ in DAMAGE.values()}
    await execute(live.dsn, "create schema whole")
    await execute(
        live.dsn, *(f"create table whole.{table} as table waypost.{table}" for table in sorted(tables))
    )
    for name, (statement, table, text) in DAMAGE.items():
        await execute(live.dsn, statement)
        found = await run(line, "verify", "-o", "json")
        assert (found.code, found.json["equal"]) == (1, False), name
        told = [row["difference"] for row in found.json["differences"] if row["table"] == table]
        assert any(text in one for one in told), (name, told)
        if name == "the anchor":
            shown = await run(line, "verify")
            assert shown.code == 1
            assert "partitions 1: anchor is 00, the log says" in " ".join(shown.out.split())
        columns = f"{COLUMNS[table]}{POSITION if table == 'partitions' else ''}"
        await execute(
            live.dsn,
            f"truncate waypost.{table}",
            f"insert into waypost.{table} ({columns}) select {columns} from whole.{table}",
        )
    assert (await run(line, "verify")).code == 0


async def test_purged_commands_are_reported_and_counted_only_if_strict(
    live: Deployment, line: CommandLine
) -> None:
    await worked(live, count=500)
    await execute(live.dsn, "delete from waypost.rejected_commands")
    lenient = await run(line, "verify")
    assert lenient.code == 0
    assert "rejected commands of the log are no longer stored" in lenient.err
    strict = await run(line, "verify", "--strict", "-o", "json")
    assert strict.code == 1
    assert {row["table"] for row in strict.json["differences"]} == {"rejected_commands"}


async def test_a_lost_outbox_entry_is_found_and_a_whole_one_is_right(
    live: Deployment, line: CommandLine
) -> None:
    await worked(live, count=200)
    await published(live, seed=7, count=200)
    await execute(live.dsn, "drop schema waypost cascade")
    assert (await run(line, "replay")).code == 0  # 200 results are owed now
    found = await run(line, "verify", "-o", "json")
    assert (found.code, found.json["differences"]) == (0, [])
    assert all(row["outbox"] for row in found.json["partitions"])
    await execute(live.dsn, "delete from waypost.outbox where partition = 0")
    lost = await run(line, "verify", "-o", "json")
    assert lost.code == 1
    assert "neither in the topic nor in the outbox" in lost.json["differences"][0]["difference"]


async def test_a_sample_looks_at_some_sessions(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=500)
    whole = (await run(line, "verify", "-o", "json")).json["partitions"]
    some = await run(line, "verify", "--sample", "0.5", "-o", "json")
    assert (some.code, some.json["differences"]) == (0, [])
    count = sum(row["sessions"] for row in some.json["partitions"])
    assert 0 < count < sum(row["sessions"] for row in whole)
    await execute(live.dsn, "update waypost.checkpoints set name = name || '!'")
    assert (await run(line, "verify", "--sample", "0.5")).code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--topic-prefix", "no-such"], "does not exist"),
        (["--partition", "9"], "there is no partition 9"),
        (["--schema", "nowhere"], "migration(s), from 1"),
        (["--postgres-dsn", "postgresql://127.0.0.1:1/x"], "can't be reached"),
    ],
)
async def test_an_undecided_comparison_is_exit_code_2(
    live: Deployment, line: CommandLine, arguments: list[str], said: str
) -> None:
    refused = await run(line, "verify", *arguments)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.error


async def test_verify_changes_nothing_and_can_be_killed(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=600)
    started = line.start("verify")
    await asyncio.to_thread(started.until, "verify: ")
    await asyncio.to_thread(started.stop, signal.SIGKILL)
    assert (await run(line, "verify")).code == 0
