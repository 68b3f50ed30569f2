"""A replay waits for servers that are away, longer each time, and gives up only when nothing moves any more."""

import pytest

from waypost_worker.partition.ports import RefusedError, UnavailableError
from waypost_worker.recovery.retry import patiently


class Work:
    """Fails so many times, some of them after progress; notes how long was waited."""

    def __init__(self, failures: int, progress: int = 0, error: type[Exception] = UnavailableError) -> None:
        self.failures = failures
        self.progress = progress
        self.error = error
        self.done = 0
        self.waits: list[float] = []

    async def attempt(self) -> None:
        self.done += self.progress
        if self.failures:
            self.failures -= 1
            raise self.error("away")

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def run(self, patience: float = 60) -> None:
        await patiently(self.attempt, lambda: self.done, self.sleep, patience)


async def test_it_waits_longer_each_time_and_succeeds() -> None:
    work = Work(failures=4)
    await work.run()
    assert work.waits == pytest.approx([0.2, 0.4, 0.8, 1.6])


async def test_it_gives_up_when_nothing_moves() -> None:
    work = Work(failures=1000)
    with pytest.raises(UnavailableError):
        await work.run(patience=10)
    assert 10 < sum(work.waits) <= 15


async def test_progress_makes_it_patient_again() -> None:
    work = Work(failures=100, progress=5)
    await work.run(patience=1)
    assert set(work.waits) == {0.2}


async def test_what_does_not_pass_is_not_waited_for() -> None:
    work = Work(failures=1, error=RefusedError)
    with pytest.raises(RefusedError):
        await work.run()
    assert work.waits == []
