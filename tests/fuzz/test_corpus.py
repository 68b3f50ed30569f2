"""Everything that ever broke a worker is answered, and harms neither the worker nor the command behind it."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from tests.fuzz.corpus import corpus
from tests.fuzz.inputs import Input, save, saved
from tests.fuzz.leg import MOST_RESIDENT, Leg, Tally, leg
from tests.support.expensive_bodies import LARGE_BODIES

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


async def problems_of(worker: Leg, tally: Tally, inputs: Iterable[Input]) -> dict[str, str]:
    """Send inputs one by one; what is wrong with each, if anything."""
    problems = {}
    for one in inputs:
        accepted = tally.accepted.total()
        problem = await worker.judge([one])
        if problem is None and accepted == tally.accepted.total():
            problem = "the broker refused it, so it shows nothing"
        if problem is not None:
            problems[one.name] = problem
        if worker.is_broken():
            break
    return problems


def is_long(one: Input) -> bool:
    """Whether it is answered soon, but takes verify and replay minutes on a busy machine."""
    return one.name.startswith(("300,000 tiny records", "16 MB in 2 KB"))


async def test_nothing_that_ever_broke_a_worker_does_so_again(worker: Leg, tally: Tally) -> None:
    assert await problems_of(worker, tally, [one for one in corpus() if not is_long(one)]) == {}
    assert 0 < tally.resident < MOST_RESIDENT
    assert await worker.recovered() is None


async def test_hundreds_of_thousands_of_records_and_16_mb_in_2_kb_do_no_harm(
    worker: Leg, tally: Tally
) -> None:
    inputs = [one for one in corpus() if is_long(one)]
    assert len(inputs) > len(LARGE_BODIES)
    assert await problems_of(worker, tally, inputs) == {}
    assert 0 < tally.resident < MOST_RESIDENT


async def test_what_a_run_finds_is_saved_under_a_name_that_says_what_it_is(tmp_path: Path) -> None:
    found = Input("batch: zstd", "a window, cut off", (b"one" * 1000, b"two"))
    paths = save(found, "offset 7 has no answer", tmp_path)
    assert [path.name for path in paths] == [
        "batch-zstd-a-window-cut-off-offset-7-has-no-answer-1-of-2.batch.gz",
        "batch-zstd-a-window-cut-off-offset-7-has-no-answer-2-of-2.batch.gz",
    ]
    assert all(path.stat().st_size < 200 for path in paths)
    assert [one.batches for one in saved(tmp_path)] == [(b"one" * 1000,), (b"two",)]
