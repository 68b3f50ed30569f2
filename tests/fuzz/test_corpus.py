"""Everything that ever broke a worker is answered, and harms neither the worker nor the command behind it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.fuzz.corpus import corpus
from tests.fuzz.inputs import Input, save, saved
from tests.fuzz.leg import MIB, MOST_RESIDENT, Leg, Tally, leg

from waypost_worker.devserver import Endpoints, Servers

# 300,000 tiny records are that many commands, and other programs may need the machine, too.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
async def worker(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path, tally: Tally
) -> AsyncIterator[Leg]:
    endpoints = Endpoints(servers.endpoints.bootstrap_servers, database)
    async with leg(endpoints, database, topic_prefix, tmp_path, tally, seed=1) as made:
        yield made


async def test_nothing_that_ever_broke_a_worker_does_so_again(
    worker: Leg, tally: Tally, record_property: Callable[[str, object], None]
) -> None:
    problems = {}
    for one in corpus():
        accepted = tally.accepted["corpus"] + tally.accepted["found"]
        problem = await worker.judge([one])
        if problem is None and accepted == tally.accepted["corpus"] + tally.accepted["found"]:
            problem = "the broker refused it, so it shows nothing"
        if problem is not None:
            problems[one.name] = problem
        if worker.is_broken():
            break
    assert problems == {}, tally
    assert await worker.recovered() is None
    assert 0 < tally.resident < MOST_RESIDENT
    record_property("resident MiB", tally.resident // MIB)


async def test_what_a_run_finds_is_saved_under_a_name_that_says_what_it_is(tmp_path: Path) -> None:
    found = Input("batch: zstd", "a window, cut off", (b"one" * 1000, b"two"))
    paths = save(found, "offset 7 has no answer", tmp_path)
    assert [path.name for path in paths] == [
        "batch-zstd-a-window-cut-off-offset-7-has-no-answer-1-of-2.batch.gz",
        "batch-zstd-a-window-cut-off-offset-7-has-no-answer-2-of-2.batch.gz",
    ]
    assert all(path.stat().st_size < 200 for path in paths)
    assert [one.batches for one in saved(tmp_path)] == [(b"one" * 1000,), (b"two",)]
