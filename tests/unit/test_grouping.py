"""Items of concurrent callers run in groups, and nobody answers for another's item."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from waypost_worker.partition.grouping import Grouper, UndoneError


class Runner:
    """Runs groups when it is told to. Items are answered in upper case; ``errors`` by item."""

    def __init__(self, most_items: int = 10, most_weight: int = 100, heavy: int = 50) -> None:
        self.groups: list[list[str]] = []
        self.errors: dict[str, Exception] = {}
        self.fatal: Exception | None = None
        self.open = asyncio.Event()
        self.begun = asyncio.Event()
        self.canceled = 0
        self.grouper: Grouper[str, str] = Grouper(
            self._run, most_items=most_items, most_weight=most_weight, heavy=heavy
        )

    async def _run(self, items: Sequence[str]) -> Sequence[str | Exception]:
        self.groups.append(list(items))
        fatal = self.fatal
        self.begun.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        if fatal is not None:
            raise fatal
        return [self.errors.get(item) or item.upper() for item in items]

    def submit(self, item: str, weight: int = 1) -> asyncio.Task[str]:
        return asyncio.create_task(self.grouper.submit(item, weight))

    async def under_way(self, item: str) -> asyncio.Task[str]:
        """Submit an item and return when its group is under way."""
        task = self.submit(item)
        await self.begun.wait()
        return task


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def outcomes(*tasks: asyncio.Task[str]) -> list[str | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_single_item_is_run_and_answered() -> None:
    runner = Runner()
    runner.open.set()
    assert await runner.grouper.submit("a") == "A"
    assert runner.groups == [["a"]]


async def test_callers_that_are_woken_together_form_the_first_group() -> None:
    runner = Runner()
    runner.open.set()
    wake = asyncio.Event()

    async def caller(item: str, steps: int) -> str:
        await wake.wait()
        await turns(steps)
        return await runner.grouper.submit(item)

    tasks = [asyncio.create_task(caller(item, steps)) for steps, item in enumerate("abc")]
    await turns()
    wake.set()
    assert await outcomes(*tasks) == ["A", "B", "C"]
    assert runner.groups == [["a", "b", "c"]]


async def test_what_arrives_while_a_group_is_under_way_forms_the_next_one() -> None:
    runner = Runner()
    first = await runner.under_way("a")
    later = [runner.submit(item) for item in "bcd"]
    await turns()
    assert runner.groups == [["a"]]
    runner.open.set()
    assert await outcomes(first, *later) == ["A", "B", "C", "D"]
    assert runner.groups == [["a"], ["b", "c", "d"]]


async def test_a_group_has_a_limited_number_of_items() -> None:
    runner = Runner(most_items=2)
    runner.open.set()
    await outcomes(*(runner.submit(item) for item in "abcde"))
    assert runner.groups == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_group_weighs_at_most_so_much_and_keeps_the_order() -> None:
    runner = Runner(most_weight=60)
    runner.open.set()
    weights = {"a": 40, "b": 30, "c": 30, "d": 1}
    await outcomes(*(runner.submit(item, weight) for item, weight in weights.items()))
    assert runner.groups == [["a"], ["b", "c"], ["d"]]


async def test_a_heavy_item_waits_for_nobody_and_nobody_for_it() -> None:
    runner = Runner()
    first = await runner.under_way("a")
    waiting, heavy = runner.submit("b"), runner.submit("c", 50)
    await turns()
    assert runner.groups == [["a"], ["c"]]
    runner.open.set()
    assert await outcomes(first, waiting, heavy) == ["A", "B", "C"]


async def test_an_error_of_one_item_is_its_own() -> None:
    runner = Runner()
    runner.open.set()
    runner.errors["b"] = KeyError("b")
    found = await outcomes(*(runner.submit(item) for item in "abc"))
    assert found == ["A", runner.errors["b"], "C"]
    assert runner.groups == [["a", "b", "c"]]


async def test_an_error_of_the_whole_group_goes_to_all_of_it_and_to_nobody_else() -> None:
    runner = Runner()
    runner.fatal = broken = OSError("broken")
    group = [runner.submit("a"), runner.submit("b")]
    await runner.begun.wait()
    runner.fatal = None
    later = runner.submit("c")
    runner.open.set()
    assert await outcomes(*group, later) == [broken, broken, "C"]
    assert runner.groups == [["a", "b"], ["c"]]


async def test_a_group_that_was_undone_is_repeated_item_by_item_once() -> None:
    runner = Runner()
    runner.open.set()
    runner.errors["b"] = KeyError("b")
    runner.fatal = UndoneError(KeyError("some"))
    tasks = [runner.submit(item) for item in "abc"]
    await runner.begun.wait()
    runner.fatal = None
    assert await outcomes(*tasks) == ["A", runner.errors["b"], "C"]
    assert runner.groups == [["a", "b", "c"], ["a"], ["b"], ["c"]]


async def test_an_item_that_fails_again_by_itself_raises_its_own_error() -> None:
    runner = Runner()
    runner.open.set()
    runner.fatal = UndoneError(KeyError("why"))
    assert await outcomes(runner.submit("a"), runner.submit("b")) == [runner.fatal.error] * 2
    assert runner.groups == [["a", "b"], ["a"], ["b"]]


async def test_a_single_item_that_was_undone_is_not_repeated() -> None:
    runner = Runner()
    runner.open.set()
    runner.fatal = UndoneError(KeyError("why"))
    assert await outcomes(runner.submit("a")) == [runner.fatal.error]
    assert await outcomes(runner.submit("b", 50)) == [runner.fatal.error]
    assert runner.groups == [["a"], ["b"]]


async def test_with_one_outcome_too_few_nobody_gets_that_of_another() -> None:
    async def run(items: Sequence[str]) -> Sequence[str | Exception]:
        return items[1:]

    grouper = Grouper(run, most_items=10, most_weight=10, heavy=10)
    tasks = [asyncio.create_task(grouper.submit(item)) for item in "ab"]
    assert [type(outcome) for outcome in await outcomes(*tasks)] == [ValueError, ValueError]


async def test_a_caller_that_is_canceled_while_it_waits_takes_its_item_back() -> None:
    runner = Runner()
    first, second, third = await runner.under_way("a"), runner.submit("b"), runner.submit("c")
    await turns()
    second.cancel()
    runner.open.set()
    found = await outcomes(first, second, third)
    assert (found[0], found[2]) == ("A", "C")
    assert isinstance(found[1], asyncio.CancelledError)
    assert runner.groups == [["a"], ["c"]]


async def test_a_group_continues_without_a_caller_that_was_canceled() -> None:
    runner = Runner()
    first, second = runner.submit("a"), runner.submit("b")
    await runner.begun.wait()
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert runner.canceled == 0
    runner.open.set()
    assert await second == "B"
    assert runner.groups == [["a", "b"]]


async def test_a_group_that_nobody_waits_for_any_more_is_canceled_and_the_next_one_runs() -> None:
    runner = Runner()
    first, second = runner.submit("a"), runner.submit("b")
    await runner.begun.wait()
    later = runner.submit("c")
    await turns()
    first.cancel()
    second.cancel()
    await outcomes(first, second)
    runner.open.set()
    assert await later == "C"
    assert (runner.canceled, runner.groups) == (1, [["a", "b"], ["c"]])


async def test_nothing_is_left_over_when_all_callers_are_gone() -> None:
    before = asyncio.all_tasks()
    runner = Runner()
    tasks = [await runner.under_way("a"), runner.submit("b"), runner.submit("c", 50)]
    await turns()
    for task in tasks:
        task.cancel()
    await outcomes(*tasks)
    await turns()
    assert asyncio.all_tasks() == before


async def test_callers_are_canceled_with_the_task_that_runs_their_group() -> None:
    """As at the end of a loop, which cancels all tasks."""
    before = asyncio.all_tasks()
    runner = Runner()
    caller = await runner.under_way("a")
    (group,) = asyncio.all_tasks() - before - {caller}
    group.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    runner.open.set()
    assert await runner.grouper.submit("b") == "B"
