"""What a spool holds after a loss of power, and however a process ends."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.timeouts import PATIENCE
from tests.unit.spools import NOWHERE, kept, until

from waypost import (
    Publisher,
    SpoolError,
    SyncPublisher,
)
from waypost.publisher.spool.log import Log, Segment

# What survives a loss of power.


def noted_syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each sync of a disk, the newest row before it began, once it is over."""
    rows: list[int] = []
    sync = Log.sync

    def note(self: Log) -> list[Segment]:
        newest = self.rows
        failed = sync(self)
        rows.append(newest)
        return failed

    monkeypatch.setattr(Log, "sync", note)
    return rows


async def test_persisted_returns_immediately_without_fsync_and_after_one_sync_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = noted_syncs(monkeypatch)
    async with Publisher(NOWHERE, spool=tmp_path / "a") as publisher:
        publisher.create("s", "n", {})
        await publisher.persisted()
        assert syncs == []
        await publisher.close(0)
    async with Publisher(NOWHERE, spool=tmp_path / "b", spool_fsync=True) as publisher:
        for _ in range(100):
            publisher.create("s", "n", {})
        await publisher.persisted()
        assert syncs[-1] == 100
        assert len(syncs) < 50, "calls share a sync"
        await publisher.close(0)


def test_a_call_of_a_sync_publisher_with_fsync_returns_once_the_disk_has_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = noted_syncs(monkeypatch)
    with SyncPublisher(NOWHERE, spool=tmp_path, spool_fsync=True) as publisher:
        for number in range(1, 20):
            publisher.create("s", "n", {})
            assert synced[-1] >= number
        publisher.close(0)


async def test_a_disk_that_cannot_be_synced_is_reported_and_later_commands_are_safe_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with Publisher(NOWHERE, spool=tmp_path, spool_fsync=True) as publisher:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", refuse)
            first = publisher.create("s", "n", {})
            with pytest.raises(SpoolError, match="will be sent, but until Kafka has them, a power failure"):
                await publisher.persisted()
            await until(lambda: "can't be synced" in str(publisher.stats().spool_error))
        # Asked again the system may say that all is well: what it lost stays unsafe until Kafka has it.
        second = publisher.create("s", "n", {})
        with pytest.raises(SpoolError):
            await publisher.persisted()
        buffer = publisher._buffer
        buffer.set_partition_count(1)
        buffer.route(1)
        settled = threading.Event()
        assert buffer.settle(0, buffer.acknowledge(0, len(buffer.take(0, 1, 10**9, {}))), settled.set)
        await until(settled.is_set)
        await publisher.persisted()
        await until(lambda: publisher.stats().spool_error is None)
        await publisher.close(0)
    assert kept(tmp_path) == [second], first


# How a process ends.

ENDS = {
    "killed": "os.kill(os.getpid(), 9)",
    "os._exit": "os._exit(0)",
    "abort": "os.abort()",
    "a forked child that never runs its exit handlers": "os._exit(0) if os.fork() == 0 else os.wait()",
}
PROGRAM = """
import os, sys
from waypost import Publisher, SyncPublisher
if "fork" in sys.argv[2]:
    if os.fork():
        os.wait()
        os._exit(0)
publisher = SyncPublisher("127.0.0.1:1", spool=sys.argv[1])
for number in range(300):
    os.write(1, (publisher.create("s", "n", {"number": number}) + "\\n").encode())
"""


@pytest.mark.parametrize("end", ENDS)
def test_however_a_process_ends_nothing_that_it_accepted_is_lost(tmp_path: Path, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + ENDS[end], str(tmp_path), end],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    sent = done.stdout.split()
    assert len(sent) == 300, done.stderr
    assert kept(tmp_path) == sent
