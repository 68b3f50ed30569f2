"""Whether what programs saw of a register can have happened one operation after the other: linearizability.

The search is that of Wing and Gong with the memory of Lowe: try each operation that may come first, and never the same
remaining operations with the same value twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Operation", "is_linearizable"]


@dataclass(frozen=True, slots=True)
class Operation:
    """A write of a value, or a read that gave it. ``end`` is infinite for a write that was never acknowledged."""

    kind: Literal["read", "write"]
    value: Any
    start: float
    end: float


def is_linearizable(operations: Sequence[Operation], initial: Any = None) -> bool:
    """Tell whether one order of the operations, true to their times, explains each read.

    A write without an end may have happened at any time after its start, or never.
    """
    ordered = sorted(operations, key=lambda each: each.start)
    count = len(ordered)
    must = {index for index, each in enumerate(ordered) if each.end != float("inf")}
    seen: set[tuple[int, frozenset[int], Any]] = set()
    # First operation that is not done, operations beyond it that are done, the register's value.
    waiting: list[tuple[int, frozenset[int], Any]] = [(0, frozenset(), initial)]
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        first, done, value = state
        left = [index for index in range(first, count) if index not in done]
        if not must & set(left):
            return True
        earliest_end = min(ordered[index].end for index in left)
        for index in left:
            operation = ordered[index]
            if operation.start > earliest_end:
                break  # another one ended before this one began
            if operation.kind == "read" and operation.value != value:
                continue
            after = done | {index}
            at = first
            while at in after:
                at += 1
            waiting.append(
                (
                    at,
                    frozenset(each for each in after if each >= at),
                    operation.value if operation.kind == "write" else value,
                )
            )
    return False
