"""Publishers in children of multiprocessing, which end without atexit: what was accepted is sent or kept."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.timeouts import PATIENCE
from tests.unit.spools import NOWHERE, kept

PROGRAM = f"""
import asyncio, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor

import waypost.publisher.sync
from waypost import Publisher, SyncPublisher

directory, kind, method, start = sys.argv[1:5]
options = {{"spool": directory, }}  # in memory until it is closed

def publish(number):
    waypost.publisher.sync._EXIT_SECONDS = 0.1
    global publisher  # as an application that keeps one for the life of its process
    if kind == "sync":
        publisher = SyncPublisher({NOWHERE!r}, **options)
    else:
        loop = asyncio.new_event_loop()
        publisher = loop.run_until_complete(Publisher({NOWHERE!r}, **options).start())
        publisher.loop = loop
    return publisher.create("s", "n", {{"number": number}})

def tell(number, to):
    to.put(publish(number))

if __name__ == "__main__":
    context = multiprocessing.get_context(method)
    if start == "process":
        to = context.SimpleQueue()
        child = context.Process(target=tell, args=(1, to))
        child.start()
        sent = [to.get()]
        child.join()
        assert child.exitcode == 0, child.exitcode
    elif start == "pool":
        pool = context.Pool(1)
        sent = pool.map(publish, [1])
        pool.close()
        pool.join()
    else:
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            sent = list(executor.map(publish, [1]))
    print(*sent)
"""


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("method", "start"),
    [
        ("fork", "process"),
        ("forkserver", "process"),
        ("spawn", "process"),
        ("fork", "pool"),
        ("forkserver", "executor"),
    ],
)
def test_a_child_that_ends_normally_keeps_what_it_accepted(
    tmp_path: Path, kind: str, method: str, start: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    spool = tmp_path / "spool"
    done = subprocess.run(
        [sys.executable, program, spool, kind, method, start],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1
    assert kept(spool) == done.stdout.split()
    assert "1 accepted commands were not acknowledged" in done.stderr


def test_a_publisher_in_a_forked_child_of_a_process_with_one_is_closed_too(tmp_path: Path) -> None:
    # The child inherits what its parent registered, and must neither run that nor lose its own.
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("context = multi", "mine = publish(0)\n    context = multi"))
    spool = tmp_path / "spool"
    done = subprocess.run(
        [sys.executable, program, spool, "sync", "fork", "process"],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in kept(spool)
    assert len(kept(spool)) == 2
