"""One request for what several owners want at the same time, as a database groups the commits of its clients.

Knows nothing about what is grouped. There are no timers: items that arrive while one group is under way form the next
one.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")


class UndoneError(Exception):
    """Raised by the function that runs a group: ``error`` stopped all of it, and nothing took effect."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(eq=False, slots=True)
class _Waiting(Generic[_Item, _Outcome]):
    item: _Item
    weight: int
    outcome: asyncio.Future[_Outcome]


class Grouper(Generic[_Item, _Outcome]):
    """Runs the items of concurrent callers in groups, one group at a time.

    ``run`` takes the items of a group and returns an outcome for each, in the same order: a value, or an exception for
    this item alone. An exception that ``run`` raises goes to all items of the group. If that is UndoneError and the
    group had several items, each of them runs again by itself, once, so that one bad item can't hold up the others.

    A group has at most ``most_items`` items that weigh at most ``most_weight`` together. An item of weight ``heavy`` or
    more runs by itself immediately, in parallel with the groups: it gains nothing from company, and others would wait
    for it.
    """

    def __init__(
        self,
        run: Callable[[Sequence[_Item]], Awaitable[Sequence[_Outcome | Exception]]],
        *,
        most_items: int,
        most_weight: int,
        heavy: int,
    ) -> None:
        self._run = run
        self._most_items = most_items
        self._most_weight = most_weight
        self._heavy = heavy
        self._waiting: deque[_Waiting[_Item, _Outcome]] = deque()
        self._under_way: list[_Waiting[_Item, _Outcome]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: _Item, weight: int = 1) -> _Outcome:
        """Run an item in a group, and return its outcome or raise it.

        A caller that is canceled before the group begins takes its item back. After that the group runs on for the
        others, and is canceled with the last of its callers: so there is nothing to close.
        """
        if weight >= self._heavy:
            return await self.run_alone(item)
        one = _Waiting[_Item, _Outcome](item, weight, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if self._task is None:
            self._start()
        try:
            return await one.outcome
        except asyncio.CancelledError:
            self._give_up(one)
            raise
        except UndoneError:
            pass
        return await self.run_alone(item)

    async def run_alone(self, item: _Item) -> _Outcome:
        """Run an item by itself, immediately. Return its outcome or raise it."""
        try:
            (outcome,) = await self._run([item])
        except UndoneError as undone:
            outcome = undone.error
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _start(self) -> None:
        self._task = asyncio.create_task(self._run_group())
        self._task.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._under_way, self._task = [], None
        if self._waiting:
            self._start()

    async def _run_group(self) -> None:
        await self._gather()
        self._under_way = group = self._take()
        if not group:
            return
        try:
            outcomes = await self._run([one.item for one in group])
            if len(outcomes) != len(group):  # before anybody gets the outcome of another
                raise ValueError(f"{len(outcomes)} outcomes for {len(group)} items")
            for one, outcome in zip(group, outcomes, strict=True):
                _settle(one.outcome, outcome)
        except Exception as error:
            if isinstance(error, UndoneError) and len(group) == 1:
                error = error.error
            for one in group:
                _settle(one.outcome, error)
        finally:
            for one in group:
                one.outcome.cancel()  # changes nothing unless this task was canceled

    async def _gather(self) -> None:
        """Let those who were woken in the same turn of the loop join, as long as each turn brings more of them."""
        gathered = 0
        while gathered < len(self._waiting) < self._most_items:
            gathered = len(self._waiting)
            await asyncio.sleep(0)

    def _take(self) -> list[_Waiting[_Item, _Outcome]]:
        group: list[_Waiting[_Item, _Outcome]] = []
        room = self._most_weight
        while self._waiting and len(group) < self._most_items:
            room -= self._waiting[0].weight
            if group and room < 0:
                break
            group.append(self._waiting.popleft())
        return group

    def _give_up(self, one: _Waiting[_Item, _Outcome]) -> None:
        if one in self._waiting:
            self._waiting.remove(one)
        elif self._task is not None and one in self._under_way and _are_done(self._under_way):
            self._task.cancel()


def _are_done(group: Sequence[_Waiting[_Item, _Outcome]]) -> bool:
    return all(one.outcome.done() for one in group)


def _settle(waiting: asyncio.Future[_Outcome], outcome: _Outcome | Exception) -> None:
    if waiting.done():  # its caller was canceled
        return
    if isinstance(outcome, Exception):
        waiting.set_exception(outcome)
    else:
        waiting.set_result(outcome)
