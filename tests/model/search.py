"""Breadth-first search through all states that can be reached. Knows nothing about what the states mean."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

_State = TypeVar("_State", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found. ``violation`` is None if every state is sound; ``path`` leads to the first that is not.

    ``actions`` are the names of all steps that were taken.
    """

    states: int
    violation: str | None
    path: tuple[str, ...]
    actions: frozenset[str]


def search(
    start: _State,
    successors: Callable[[_State], Iterable[tuple[str, _State]]],
    unsound: Callable[[_State], str | None],
) -> Outcome:
    """Visit every reachable state, nearest first, and stop at the first unsound one."""
    came: dict[_State, tuple[_State, str] | None] = {start: None}
    waiting = deque([start])
    actions: set[str] = set()
    while waiting:
        state = waiting.popleft()
        for action, reached in successors(state):
            actions.add(action)
            if reached in came:
                continue
            came[reached] = (state, action)
            if (violation := unsound(reached)) is not None:
                return Outcome(len(came), violation, _path(came, reached), frozenset(actions))
            waiting.append(reached)
    return Outcome(len(came), None, (), frozenset(actions))


def _path(came: dict[_State, tuple[_State, str] | None], state: _State) -> tuple[str, ...]:
    actions = []
    while (step := came[state]) is not None:
        state, action = step
        actions.append(action)
    return tuple(reversed(actions))
