"""How a backend of the adapters starts: what a failed start leaves behind, and in which process it was started."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.timeouts import PATIENCE

from waypost import PublisherClosedError, SpoolError
from waypost.adapters import Backend

NOWHERE = "127.0.0.1:1", "postgresql://nobody@127.0.0.1:1/none"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "waypost-adapter"]


@pytest.fixture
def unusable(tmp_path: Path) -> Backend:
    """A backend whose spool can't be made: its directory is a file."""
    spool = tmp_path / "spool"
    spool.touch()
    return Backend(*NOWHERE, publisher_options={"spool": spool})


def test_a_start_that_fails_leaves_no_thread_behind(unusable: Backend) -> None:
    for _ in range(2):
        with pytest.raises(SpoolError), unusable:
            raise AssertionError
        assert threads() == []
    assert "new or closed" in repr(unusable)


async def test_a_start_that_fails_leaves_the_backend_closed(unusable: Backend) -> None:
    with pytest.raises(SpoolError):
        await unusable.__aenter__()
    assert "new or closed" in repr(unusable)
    with pytest.raises(PublisherClosedError, match="was not started"):
        await unusable.join(asyncio.sleep(0))


async def test_options_without_brokers_start_no_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr("waypost.adapters.connection.Publisher.start", started.append)
    backend = Backend(*NOWHERE, reader_options={"bootstrap_servers": None})
    with pytest.raises(ValueError, match="bootstrap_servers"):
        await backend.__aenter__()
    assert started == []


def test_a_backend_that_was_only_made_before_a_fork_works_in_the_child() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MADE_BEFORE, *NOWHERE],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.stdout, done.returncode) == ("ran and stopped: []\n", 0), done.stderr


MADE_BEFORE = """
import asyncio, os, sys, threading
from waypost.adapters import Backend

async def ran():
    return "ran and stopped:"

backend = Backend(*sys.argv[1:])
if (child := os.fork()) == 0:
    with backend:
        said = backend.run(ran())
    print(said, [each.name for each in threading.enumerate() if each.name == "waypost-adapter"], flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
