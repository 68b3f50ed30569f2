"""Snapshots and disks that are full, commands that are killed in the middle: a second start ends well."""

import asyncio
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
from tests.support.cli import WAYPOST, CommandLine, environment
from tests.support.deployment import Deployment
from tests.support.kill_points import run_until_killed, until_blocked
from tests.support.snapshots import contents, empty, here, line, restored, run, said, taken, worked

__all__ = ["empty", "here", "line"]


async def test_a_full_disk_ends_with_one_line_and_no_snapshot(
    here: Deployment, line: CommandLine, tmp_path: Path
) -> None:
    here.own(0)
    session = here.sessions(0)[0]
    await here.create(session, noise=os.urandom(300_000).hex())
    await here.answered(1)
    ended = await asyncio.to_thread(
        subprocess.run,
        [*WAYPOST, "snapshot", "create"],
        check=False,
        cwd=tmp_path,
        env=environment(line.settings),
        capture_output=True,
        text=True,
        # The disk of this process is full after 100 KB of a file.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "can't be written: File too large. The snapshot is not complete" in ended.stderr
    (row,) = (await run(line, "snapshot", "list", "-o", "json")).json
    assert row["state"] == "incomplete"
    assert not any(name.endswith(".part") for _, _, names in os.walk(tmp_path) for name in names)
    assert (await taken(line))["checkpoints"] == 1


async def test_a_snapshot_that_is_killed_does_not_count_and_can_be_removed(
    here: Deployment, line: CommandLine
) -> None:
    await worked(here)
    blocker: Any = await asyncpg.connect(here.dsn)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("lock table waypost.rejected_commands in access exclusive mode")
    making = line.start("snapshot", "create")
    try:
        await until_blocked(blocker)
        await asyncio.to_thread(making.stop, signal.SIGKILL)
    finally:
        making.end()
        await transaction.rollback()
        await blocker.close()
    (left,) = (await run(line, "snapshot", "list", "-o", "json")).json
    assert left["state"] == "incomplete"
    assert list((line.directory / "snapshots" / left["name"]).rglob("checkpoints-*"))
    assert "holds no complete snapshot" in said(await run(line, "snapshot", "check"))
    made = await taken(line)
    plan = (await run(line, "snapshot", "prune", "--keep", "1", "--dry-run", "-o", "json")).json
    assert [row["name"] for row in plan] == [left["name"]]
    assert len((await run(line, "snapshot", "list", "-o", "json")).json) == 2
    assert (await run(line, "snapshot", "prune", "--keep", "1", "--yes")).code == 0
    (kept,) = (await run(line, "snapshot", "list", "-o", "json")).json
    assert (kept["name"], kept["state"]) == (made["name"], "complete")
    assert (await run(line, "snapshot", "check")).code == 0


async def test_a_restore_that_is_killed_leaves_nothing_and_can_be_started_again(
    here: Deployment, line: CommandLine, empty: str
) -> None:
    await worked(here)
    await taken(line)
    assert (await run(line, "migrate", "--postgres-dsn", empty)).code == 0
    blocker: Any = await asyncpg.connect(empty)
    transaction = blocker.transaction()
    await transaction.start()
    # It may look at the table, but not fill it: the tables before it are filled by then.
    await blocker.execute("lock table waypost.checkpoints in share mode")
    filling = line.start("snapshot", "restore", "--postgres-dsn", empty)
    try:
        await until_blocked(blocker)
        await asyncio.to_thread(filling.stop, signal.SIGKILL)
    finally:
        filling.end()
        await transaction.rollback()
        await blocker.close()
    assert not any((await contents(empty)).values())
    assert (await restored(line, empty)).code == 0
    assert await contents(empty) == await contents(here.dsn)


async def test_restoring_twice_in_parallel_fills_it_once(
    here: Deployment, line: CommandLine, empty: str
) -> None:
    await worked(here)
    await taken(line)
    both = [line.start("snapshot", "restore", "--postgres-dsn", empty) for _ in range(2)]
    try:
        ended = [await asyncio.to_thread(each.wait) for each in both]
    finally:
        for each in both:
            each.end()
    assert sorted(each.code for each in ended) == [0, 1]
    (lost,) = [each for each in ended if each.code]
    assert "is not empty" in lost.err
    assert await contents(empty) == await contents(here.dsn)


async def test_a_prune_that_is_killed_never_leaves_half_a_snapshot_that_counts(
    here: Deployment, line: CommandLine
) -> None:
    await worked(here)
    old = (await taken(line))["name"]
    new = (await taken(line))["name"]
    # The manifest goes first; what is left of the rest when it is killed is no snapshot any more.
    await asyncio.to_thread(
        run_until_killed, line, "os.remove", ".copy.zst", 3, "snapshot", "prune", "--keep", "1", "--yes"
    )
    assert list((line.directory / "snapshots" / old).rglob("*.copy.zst"))
    found = {row["name"]: row["state"] for row in (await run(line, "snapshot", "list", "-o", "json")).json}
    assert found == {old: "incomplete", new: "complete"}
    assert "was never completed" in said(await run(line, "snapshot", "check", old))
    again = await run(line, "snapshot", "prune", "--keep", "1", "--yes", "-o", "json")
    assert [row["name"] for row in again.json] == [old]
    assert not (line.directory / "snapshots" / old).exists()
    assert (await run(line, "snapshot", "check")).code == 0
