"""Replay and verify refuse a log that lacks the last command that was answered: a log that was cut leaves no hole."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest
from tests.simulation.broker import CommandRecord, StoredResult

from waypost_worker.partition.ports import RefusedError
from waypost_worker.recovery.log_scan import check_last_answer
from waypost_worker.recovery.replay.comparison import CompareOptions
from waypost_worker.recovery.replay.preflight import plan_partition
from waypost_worker.recovery.verify.verification import Verification, VerifySources

LACKS = "answers commands up to offset 4, but the command topic, which ends at 3, has none there"


class Log:
    """Three commands."""

    async def bounds(self) -> tuple[int, int]:
        return 0, 3

    async def read(self, first: int, end: int) -> Sequence[CommandRecord]:
        return [CommandRecord(offset, 0, b"key", b"", []) for offset in range(first, min(end, 3))]


class Results:
    """Answers to the first ``answered`` commands."""

    def __init__(self, answered: int) -> None:
        self._answered = answered

    async def bounds(self) -> tuple[int, int]:
        return 0, self._answered

    async def read(self, first: int, end: int) -> AsyncIterator[Sequence[StoredResult]]:
        yield [
            StoredResult(offset, b"key", orjson.dumps({"command": {"offset": offset}}), [])
            for offset in range(first, end)
        ]


class Empty:
    """A database that holds nothing."""

    async def __aenter__(self) -> "Empty":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def partition(self) -> None:
        return None


log: Any = Log()
too_many: Any = Results(5)
fitting: Any = Results(3)


async def test_the_last_answered_command_must_be_in_the_log() -> None:
    await check_last_answer(log, fitting, 0)
    with pytest.raises(RefusedError, match=LACKS):
        await check_last_answer(log, too_many, 0)


async def test_answers_to_what_is_applied_already_are_not_looked_for() -> None:
    await check_last_answer(log, too_many, 5)


async def test_a_replay_refuses_a_log_that_lacks_answered_commands() -> None:
    plan = await plan_partition(0, None, 3, log, fitting, CompareOptions())
    assert plan.answered == 2
    for end in (3, 0):
        with pytest.raises(RefusedError, match=LACKS):
            await plan_partition(0, None, end, log, too_many, CompareOptions())


async def test_a_replay_that_compares_nothing_replays_what_there_is() -> None:
    plan = await plan_partition(0, None, 3, log, too_many, CompareOptions(contents=False))
    assert plan.end == 3


async def test_a_verification_refuses_a_log_that_lacks_answered_commands() -> None:
    sources = VerifySources(log, too_many, lambda _: Empty())  # type: ignore[arg-type, return-value]
    with pytest.raises(RefusedError, match=LACKS):
        await Verification(0, 1, "results", sources, None).run()  # type: ignore[arg-type]
