"""``waypost verify --from-snapshot`` and in passes: what the log no longer holds, and what memory does not."""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment
from tests.support.recovery import PARTITIONS, execute, line, live, published, run, worked
from tests.support.snapshots import edited, trim

from waypost_worker.devserver import Servers

__all__ = ["line", "live"]


@pytest.fixture
def kept(line: CommandLine) -> CommandLine:
    """The command line with a place for snapshots."""
    return CommandLine(
        line.directory, {**line.settings, "WAYPOST_SNAPSHOTS": str(line.directory / "snapshots")}
    )


async def taken(kept: CommandLine) -> dict[str, int]:
    """Take a snapshot; its positions."""
    made = await run(kept, "snapshot", "create", "-o", "json")
    assert made.code == 0, made.err
    positions: dict[str, int] = made.json["positions"]
    return positions


async def cut(live: Deployment, positions: dict[str, int]) -> None:
    for partition, position in positions.items():
        await trim(live, live.topics.commands, int(partition), position)


async def test_a_log_that_was_cut_is_proved_from_a_snapshot_on(live: Deployment, kept: CommandLine) -> None:
    await worked(live, count=500)
    positions = await taken(kept)
    await worked(live, seed=2, count=300, before=500)
    whole = await run(kept, "verify", "--from-snapshot", "latest", "-o", "json")
    assert (whole.code, whole.json["differences"]) == (0, [])
    await cut(live, positions)
    refused = await run(kept, "verify")
    assert refused.code == 2
    assert "retention removed the first" in refused.error
    assert "with --from-snapshot" in refused.error
    found = await run(kept, "verify", "--from-snapshot", "latest", "-o", "json")
    assert (found.code, found.json["equal"]) == (0, True), found.json
    assert {str(row["partition"]): row["began"] for row in found.json["partitions"]} == positions
    assert [row["fingerprint"] for row in found.json["partitions"]] == [
        row["fingerprint"] for row in whole.json["partitions"]
    ]
    people = await run(kept, "verify", "--from-snapshot", "latest")
    assert f"what the snapshot {found.json['from_snapshot']} and the log since then say" in people.err


async def test_damage_before_and_behind_the_snapshot_is_found(live: Deployment, kept: CommandLine) -> None:
    await worked(live, count=400)
    positions = await taken(kept)
    await worked(live, seed=2, count=300, before=400)
    await cut(live, positions)
    await execute(live.dsn, *(f"create table public.{table} as table waypost.{table}" for table in DAMAGED))
    for table, statement, text in DAMAGE:
        await execute(live.dsn, statement)
        found = await run(kept, "verify", "--from-snapshot", "latest", "-o", "json")
        told = [row["difference"] for row in found.json["differences"] if row["table"] == table]
        assert (found.code, len(told)) == (1, 1), (statement, found.json["differences"])
        assert text in told[0], statement
        columns = "session_id, partition, counter, policy, checkpoints, first_recorded_at, last_recorded_at"
        chosen = columns if table == "sessions" else "*"
        into = f"({columns})" if table == "sessions" else ""
        await execute(
            live.dsn,
            f"truncate waypost.{table}",
            f"insert into waypost.{table} {into} select {chosen} from public.{table}",
        )
    assert (await run(kept, "verify", "--from-snapshot", "latest")).code == 0


# Sessions of the first log are in the snapshot only, those of the second in what followed.
OLD, NEW = (
    f"ctid = (select ctid from waypost.checkpoints where session_id like 'run-{seed}-%' and command_id is not null "
    "order by number desc limit 1)"
    for seed in (1, 2)
)
FLIP = "update waypost.checkpoints set data = set_byte(data, 2, get_byte(data, 2) # 1) where "
DAMAGED = ("checkpoints", "sessions", "recent_commands", "rejected_commands")
DAMAGE = [
    ("checkpoints", FLIP + OLD, "data or metadata is not what the snapshot"),
    ("checkpoints", FLIP + NEW, "data differs"),
    ("checkpoints", f"delete from waypost.checkpoints where {OLD}", "the row is missing"),
    (
        "sessions",
        "update waypost.sessions set counter = counter + 1 where session_id = "
        "(select min(session_id) from waypost.sessions where session_id like 'run-1-%')",
        "counter is",
    ),
    (
        "recent_commands",
        "delete from waypost.recent_commands where ctid = (select ctid from waypost.recent_commands limit 1)",
        "the row is missing",
    ),
    (
        "rejected_commands",
        r"update waypost.rejected_commands set value = '\x00' where ctid = "
        '(select ctid from waypost.rejected_commands order by "offset" limit 1)',
        "are not those of the record",
    ),
]


async def test_a_snapshot_is_proved_from_its_predecessor_and_damage_in_it_is_found(
    live: Deployment, kept: CommandLine
) -> None:
    await worked(live, count=300)
    first = await run(kept, "verify", "--from-snapshot", "latest")
    assert first.code == 2
    positions = await taken(kept)
    (older,) = [path.name for path in (kept.directory / "snapshots").iterdir()]
    await worked(live, seed=2, count=200, before=300)
    await taken(kept)
    chain = ("verify", "--of-snapshot", "latest", "--from-snapshot", older)
    assert (await run(kept, "verify", "--of-snapshot", older)).code == 0
    await cut(live, positions)
    found = await run(kept, *chain, "-o", "json")
    assert (found.code, found.json["differences"]) == (0, [])
    now = await run(kept, "verify", "--from-snapshot", older, "-o", "json")
    assert [row["fingerprint"] for row in now.json["partitions"]] == [
        row["fingerprint"] for row in found.json["partitions"]
    ]
    await execute(live.dsn, f"update waypost.checkpoints set pinned = not pinned where {OLD}")
    await taken(kept)
    damaged = await run(kept, *chain, "-o", "json")
    assert (damaged.code, len(damaged.json["differences"])) == (1, 1)
    assert "pinned is" in damaged.json["differences"][0]["difference"]


async def test_results_that_were_pending_in_the_snapshot_are_looked_for(
    live: Deployment, kept: CommandLine, servers: Servers
) -> None:
    await worked(live, count=200)
    await published(live, seed=7, count=200)
    await execute(live.dsn, "drop schema waypost cascade")
    assert (await run(kept, "replay")).code == 0  # 200 results are owed now
    positions = await taken(kept)
    await cut(live, positions)
    found = await run(kept, "verify", "--from-snapshot", "latest", "-o", "json")
    assert (found.code, found.json["differences"]) == (0, [])
    assert all(row["outbox"] for row in found.json["partitions"])
    await execute(live.dsn, "delete from waypost.outbox where partition = 0")
    lost = await run(kept, "verify", "--from-snapshot", "latest", "-o", "json")
    assert lost.code == 1
    assert "neither in the topic nor in the outbox" in lost.json["differences"][0]["difference"]


async def test_a_database_that_was_adopted_is_proved_from_a_snapshot_taken_since(
    live: Deployment, kept: CommandLine
) -> None:
    await worked(live, count=200)
    second = f"{live.topics.prefix}-second"
    flags = ("--topic-prefix", second)
    assert (await run(kept, "topics", "create", "--partitions", str(PARTITIONS), *flags)).code == 0
    assert (await run(kept, "topics", "adopt", "--yes", *flags)).code == 0
    assert (await run(kept, "snapshot", "create", *flags)).code == 0
    refused = await run(kept, "verify", *flags)
    assert (refused.code, "name a snapshot that was taken since" in refused.err) == (2, True)
    found = await run(kept, "verify", "--from-snapshot", "latest", "-o", "json", *flags)
    assert (found.code, found.json["differences"]) == (0, [])
    assert sum(row["checkpoints"] for row in found.json["partitions"]) > 20


async def test_an_undecided_comparison_with_a_snapshot_is_exit_code_2(
    live: Deployment, kept: CommandLine, tmp_path: Path
) -> None:
    await worked(live, count=200)
    none = await run(kept, "verify", "--from-snapshot", "latest")
    assert (none.code, "holds no complete snapshot" in none.error) == (2, True)
    assert "name one with --from-snapshot" in (await run(kept, "verify", "--at", "x")).error
    older = kept.directory / "older"
    assert (await run(kept, "snapshot", "create", "--at", str(older))).code == 0
    await worked(live, seed=2, count=200, before=200)
    positions = await taken(kept)
    assert (await run(kept, "snapshot", "restore", "--at", str(older), "--schema", "behind")).code == 0
    behind = await run(kept, "verify", "--from-snapshot", "latest", "--schema", "behind")
    assert (behind.code, "use an older snapshot" in behind.err) == (2, True)
    await cut(live, positions)
    gone = await run(kept, "verify", "--from-snapshot", "latest", "--at", str(older))
    assert (gone.code, "retention removed what lies between" in gone.error) == (2, True)
    (snapshot,) = (kept.directory / "snapshots").iterdir()
    edited(lambda fields: fields.update(commands_topic="other.commands"))(snapshot)
    foreign = await run(kept, "verify", "--from-snapshot", "latest")
    assert (foreign.code, "is of the topic 'other.commands'" in foreign.error) == (2, True)
    edited(lambda fields: fields.update(commands_topic=live.topics.commands))(snapshot)
    file = sorted(snapshot.rglob("checkpoints-*.zst"))[-1]
    file.write_bytes(file.read_bytes()[:-1])
    damaged = await run(kept, "verify", "--from-snapshot", "latest")
    assert (damaged.code, "bytes instead of" in damaged.err) == (2, True)


async def test_what_does_not_fit_into_memory_is_done_in_passes(live: Deployment, kept: CommandLine) -> None:
    await worked(live, count=600)
    whole = await run(kept, "verify", "-o", "json")
    assert (whole.code, {row["passes"] for row in whole.json["partitions"]}) == (0, {1})
    positions = await taken(kept)
    for flags in ((), ("--from-snapshot", "latest")):
        parts = await run(kept, "verify", "--memory", "0.1", "-o", "json", *flags)
        assert (parts.code, parts.json["differences"]) == (0, [])
        passes = [row.pop("passes") for row in parts.json["partitions"]]
        assert max(passes) > 1  # one partition's may fit
        same = (
            "fingerprint",
            "sessions",
            "checkpoints",
            "recent_commands",
            "rejected_commands",
            "next_offset",
        )
        for mine, other in zip(parts.json["partitions"], whole.json["partitions"], strict=True):
            assert {name: mine[name] for name in same} == {name: other[name] for name in same}
    await execute(live.dsn, "update waypost.checkpoints set pinned = not pinned")
    await execute(live.dsn, "delete from waypost.rejected_commands")
    damaged = await run(kept, "verify", "--memory", "0.1", "--strict", "--limit", "10000", "-o", "json")
    count = {
        table: sum(row[table] for row in whole.json["partitions"])
        for table in ("checkpoints", "rejected_commands")
    }
    assert (
        len([one for one in damaged.json["differences"] if one["table"] == "checkpoints"])
        == count["checkpoints"]
    )
    assert (
        len([one for one in damaged.json["differences"] if one["table"] == "rejected_commands"])
        == count["rejected_commands"]
    )
    assert positions == {str(row["partition"]): row["next_offset"] for row in whole.json["partitions"]}


async def test_passes_while_workers_keep_running(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=300)
    for partition in range(PARTITIONS):
        live.own(partition)
    await published(live, seed=2, count=300)
    found = await run(line, "verify", "--memory", "0.1", "-o", "json")
    assert (found.code, found.json["differences"]) == (0, [])
    assert any(row["passes"] > 1 for row in found.json["partitions"])
    await live.answered(600)


async def test_a_verification_from_a_snapshot_can_be_killed(live: Deployment, kept: CommandLine) -> None:
    await worked(live, count=300)
    positions = await taken(kept)
    await worked(live, seed=2, count=600, before=300)
    await cut(live, positions)
    started = kept.start("verify", "--from-snapshot", "latest")
    await asyncio.to_thread(started.until, "verify: ")
    await asyncio.to_thread(started.stop, signal.SIGKILL)
    assert (await run(kept, "verify", "--from-snapshot", "latest")).code == 0
