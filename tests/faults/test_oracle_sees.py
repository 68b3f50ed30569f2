"""The oracle and the scenarios can fail: workers with a bug on purpose are found out.

Breaks: a worker that forgets its predecessor's outbox; one that appends every batch of results twice; one that keeps
what belongs to partitions that it no longer owns.
Must hold: the verdict says lost, and doubled, and names what is kept.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.faults.scene import Scene, scene, seed_of_run

from waypost_worker.devserver import Endpoints, Servers


@pytest.fixture
async def unlisted(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Scene]:
    """A stage whose verdict does not go into the table."""
    endpoints = Endpoints(servers.endpoints.bootstrap_servers, database)
    async with scene("sabotage", endpoints, topic_prefix, tmp_path, seed_of_run(), []) as made:
        yield made


@pytest.mark.long
@pytest.mark.parametrize(("sabotage", "found"), [("drop-outbox", "lost"), ("append-twice", "doubled")])
async def test_a_bug_on_purpose_is_found(unlisted: Scene, sabotage: str, found: str) -> None:
    first = await unlisted.worker("--point", "batch-4-committed")
    await unlisted.until(lambda: not first.alive)
    await unlisted.worker("--sabotage", sabotage)
    await unlisted.answered(30)
    with pytest.raises(AssertionError):
        await unlisted.judge()
    assert getattr(unlisted.row, found) > 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("sabotage", "found"),
    [
        ("leak-logs", "holds 8 users of connections for 2 partitions"),
        ("leak-clusters", "holds 6 clusters for 2 partitions"),
    ],
)
async def test_a_leak_is_found(unlisted: Scene, sabotage: str, found: str) -> None:
    leaking = await unlisted.worker("--sabotage", sabotage)
    await unlisted.until(lambda: all(unlisted.live.terms[one] for one in range(unlisted.partitions)))
    other = await unlisted.worker()  # takes over half of the partitions
    await unlisted.until(lambda: other.says("partition_acquired") == unlisted.partitions // 2)
    await unlisted.answered(30)
    unlisted.rest_within = 10
    with pytest.raises(AssertionError):
        await unlisted.judge()
    (problem,) = unlisted.row.problems
    assert problem.startswith(f"{leaking.name} {found}, at most ")
