"""What a worker says of its own failures, outside the terms of owners: nothing of it stays unseen."""

import asyncio
from typing import Any

import pytest
import structlog

from waypost_worker.config.settings import Settings
from waypost_worker.partition.ports import ReadProgress
from waypost_worker.runtime import worker as module
from waypost_worker.runtime.worker import Worker, _Run
from waypost_worker.telemetry.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def worker(metrics: Metrics) -> Worker:
    return Worker(Settings(postgres_dsn="postgresql://localhost/none"), metrics)


class FakeOwner:
    """An owner that knows how far it has come."""

    def __init__(self, progress: ReadProgress | None) -> None:
        self.progress = progress


class FakeGroup:
    """A group whose partitions end at 10, and which fails at first by an unexpected error."""

    assigned = frozenset({0, 1})

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = asyncio.Event()

    async def commit(self, offsets: dict[int, int]) -> None:
        self.committed_offsets = offsets

    async def ends(self) -> dict[int, int]:
        self.failures -= 1
        if self.failures >= 0:
            raise TypeError("no mapping")
        self.asked.set()
        return {0: 10, 1: 10}

    async def committed(self, partitions: Any) -> dict[int, int]:
        return dict.fromkeys(partitions, 4)


def series(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }


@pytest.mark.parametrize("how", ["raises", "is canceled"])
async def test_an_owner_that_ends_outside_its_terms_is_counted_logged_and_shown(
    worker: Worker, metrics: Metrics, how: str
) -> None:
    async def ends() -> None:
        if how == "raises":
            raise TypeError("a bug of the owner itself")
        await asyncio.Event().wait()

    task = asyncio.create_task(ends())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    worker.health.stage = "running"
    worker.health.assignment(frozenset({3}), rebalancing=False)
    with structlog.testing.capture_logs() as lines:
        worker._take_note(3, _Run(FakeOwner(None), task))  # type: ignore[arg-type]
    error = "TypeError" if how == "raises" else "CancelledError"
    assert series(metrics)["waypost_terms_ended_total", "error"] == 1
    assert series(metrics)["waypost_failing_partitions",] == 1
    assert (
        (await worker.health.ready())
        .checks["partitions"]
        .startswith(f"partition 3: unexpected error: {error} at ")
    )
    (line,) = lines
    assert (line["event"], line["retry_seconds"]) == ("owner_failed", 1.0)


async def test_an_error_in_a_look_is_logged_once_and_the_next_look_is_taken(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.001)
    group = FakeGroup(failures=2)
    with structlog.testing.capture_logs() as lines:
        looking = asyncio.create_task(worker._look_around(lambda: group))  # type: ignore[arg-type, return-value]
        async with asyncio.timeout(30):
            await group.asked.wait()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    assert [line["event"] for line in lines] == ["look_failed"]
    assert "TypeError: no mapping" in lines[0]["exception"]


async def test_a_look_shows_lag_and_open_transactions(worker: Worker, metrics: Metrics) -> None:
    group = FakeGroup(failures=0)
    worker._runs = {
        0: _Run(FakeOwner(ReadProgress(9, 9, 10)), None),  # type: ignore[arg-type]
        1: _Run(FakeOwner(None), None),  # type: ignore[arg-type]
    }
    await worker._look(group)  # type: ignore[arg-type]
    assert group.committed_offsets == {0: 9}
    found = series(metrics)
    assert found["waypost_lag_commands", "0"] == 1
    assert found["waypost_lag_commands", "1"] == 6, "from the group's offset: its owner knows none"
    assert found["waypost_open_transaction_seconds", "0"] == 0
    assert ("waypost_open_transaction_seconds", "1") not in found
    await worker._look(group)  # type: ignore[arg-type]
    assert series(metrics)["waypost_open_transaction_seconds", "0"] > 0
