"""The ends of a publisher: closed, cancelled, left open, forked; its spool keeps what it can."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.spools import NOWHERE, kept, until

from waypost import (
    Publisher,
    PublisherClosedError,
)

LEFT_OPEN = f"""
import asyncio, sys
from waypost import Publisher
async def main():
    publisher = await Publisher({NOWHERE!r}, spool=sys.argv[1]).start()
    for number in range(40):
        print(publisher.create("s", "n", {{"number": number}}), flush=True)
    if sys.argv[2] == "stopped":
        asyncio.get_running_loop().stop()
        await asyncio.sleep(3600)
if sys.argv[2] == "stopped":
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    loop.run_forever()
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["finished", "stopped"])
def test_a_publisher_that_is_still_open_at_the_end_keeps_its_commands(tmp_path: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, str(tmp_path), how],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 40
    assert kept(tmp_path) == done.stdout.split()


LEFT_OPEN_IN_A_THREAD = f"""
import sys
from waypost import SyncPublisher
import waypost.publisher.sync
waypost.publisher.sync._EXIT_SECONDS = 0.1
publisher = SyncPublisher({NOWHERE!r}, spool=sys.argv[1])
for number in range(40):
    print(publisher.create("s", "n", {{"number": number}}), flush=True)
"""


def test_a_sync_publisher_that_is_still_open_at_the_end_keeps_its_commands(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN_IN_A_THREAD, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stdout.split()) == 40
    assert kept(tmp_path) == done.stdout.split()


FORKED = f"""
import os, sys, time
from waypost import SyncPublisher, PublisherClosedError
publisher = SyncPublisher({NOWHERE!r}, spool=sys.argv[1])
sent = [publisher.create("s", "n", {{}}) for _ in range(10)]
reading, writing = os.pipe()
if os.fork() == 0:
    try:
        publisher.create("s", "n", {{}})
    except PublisherClosedError:
        own = SyncPublisher({NOWHERE!r}, spool=sys.argv[1])
        own.create("s", "n", {{}})
        assert own.stats().recovered == 0, "the parent lives"
        os.write(writing, b"ok")
    os.close(writing)
    os.read(int(sys.argv[2]), 1)
    os._exit(0)
os.close(writing)
assert os.read(reading, 10) == b"ok"
print(*sent, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_forked_child_neither_writes_to_the_parents_spool_nor_keeps_it_from_being_drained(
    tmp_path: Path,
) -> None:
    hold, release = os.pipe()
    try:
        parent = _run_forked(tmp_path, hold)
        # The parent is dead, its child lives on and holds nothing but its own.
        assert kept(tmp_path) == parent
    finally:
        os.close(release)
        os.close(hold)


def _run_forked(directory: Path, hold: int) -> list[str]:
    with subprocess.Popen(
        [sys.executable, "-c", FORKED, str(directory), str(hold)], stdout=subprocess.PIPE, pass_fds=[hold]
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode().split()
        assert process.wait(30) == -9
        process.stdout.close()
    return line


async def test_a_publisher_from_before_a_fork_refuses_to_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        with monkeypatch.context() as patch:
            patch.setattr("waypost.publisher.client.os.getpid", lambda: 1)
            with pytest.raises(PublisherClosedError, match="fork"):
                await publisher.close()
        await publisher.close(0)


async def test_a_canceled_close_still_keeps_everything(tmp_path: Path) -> None:
    publisher = await Publisher(NOWHERE, spool=tmp_path).start()
    sent = [publisher.create("s", "n", {}) for _ in range(10)]
    closing = asyncio.create_task(publisher.close(60))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert kept(tmp_path) == sent


def test_the_spool_is_loaded_only_if_there_is_one_and_sqlite_only_for_old_ones(tmp_path: Path) -> None:
    code = (
        "import sys, asyncio\nfrom waypost import Publisher\n"
        "def loaded(): return 'waypost.publisher.spool' in sys.modules, 'sqlite3' in sys.modules\n"
        f"asyncio.run(Publisher({NOWHERE!r}).start())\nprint(*loaded())\n"
        f"asyncio.run(Publisher({NOWHERE!r}, spool={str(tmp_path)!r}).start())\nprint(*loaded())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False False\nTrue False\n"


async def test_a_waiter_is_released_when_the_publisher_is_closed(tmp_path: Path) -> None:
    for options in ({"max_buffer_count": 4}, {"spool": tmp_path, "max_spool_bytes": 700}):
        publisher = await Publisher(NOWHERE, **options).start()  # type: ignore[arg-type]
        for _ in range(4):
            publisher.create("s", "n", {})
        waiting = [asyncio.create_task(publisher.drain()), asyncio.create_task(publisher.flush())]
        await asyncio.sleep(0)
        assert await publisher.close(0) == 4
        async with asyncio.timeout(10):
            room, flush = await asyncio.gather(*waiting, return_exceptions=True)
        assert flush == 4
        assert isinstance(room, PublisherClosedError)


async def test_a_canceled_close_reports_what_is_lost_and_a_second_one_waits_for_it() -> None:
    told: dict[str, BaseException | None] = {}
    publisher = await Publisher(NOWHERE, on_delivery=told.__setitem__).start()
    sent = [publisher.create("s", "n", {}) for _ in range(10)]
    closing = asyncio.create_task(publisher.close(3600))
    await asyncio.sleep(0)
    closing.cancel()
    assert await publisher.close(20) == 10
    assert list(told) == sent
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_a_closed_publisher_is_not_started_again() -> None:
    publisher = await Publisher(NOWHERE).start()
    await publisher.close()
    with pytest.raises(PublisherClosedError, match="create a new one"):
        await publisher.start()


INTERRUPTED = f"""
import os, signal, sys, threading, time
from waypost import SyncPublisher
publisher = SyncPublisher({NOWHERE!r}, spool=sys.argv[1])
print(*[publisher.create("s", "n", {{"number": number}}) for number in range(40)], flush=True)
def interrupt():
    while not publisher._publisher._closed:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    publisher.close(3600)
except KeyboardInterrupt:
    print(publisher.close(3600))
"""


def test_an_interrupted_close_keeps_everything_and_ends_cleanly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    sent, left = done.stdout.splitlines()
    assert (kept(tmp_path), left) == (sent.split(), "40")
    assert "Traceback" not in done.stderr
    assert "Task was destroyed" not in done.stderr


async def test_a_canceled_start_leaves_the_spool_to_the_next_publisher(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        sent = [publisher.create("s", "n", {}) for _ in range(10)]
        await publisher.close(0)
    starting = asyncio.create_task(Publisher(NOWHERE, spool=tmp_path).start())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await until(lambda: kept(tmp_path) == sent)


@pytest.mark.parametrize(("after", "said"), [(0.0, 1), (60.0, 0)], ids=["long", "short"])
async def test_a_close_that_takes_long_says_that_it_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, after: float, said: int
) -> None:
    monkeypatch.setattr("waypost.publisher.client._PATIENT_SECONDS", after)
    publisher = await Publisher(NOWHERE).start()
    publisher.create("s", "n", {})
    assert await publisher.close(timeout=0.2) == 1
    waiting = "The publisher is closing, and waits up to 0.2 s for Kafka to acknowledge 1 commands."
    assert sum(waiting in record.getMessage() for record in caplog.records) == said
