"""Statements of several partitions against a simulated Postgres, such as group commits. What forms the groups is the
code that does so for the real one.

A statement for several partitions lands as a whole, and judges each of them by itself; or the server rolls it back.
Unlike the real server, this one may lose some of them in a failover and keep others.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulation.loop import current_process
from typing_extensions import override

from waypost_worker.partition.grouping import Grouper, UndoneError
from waypost_worker.partition.ports import FencedError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from tests.simulation.database import Database


class Statement(NamedTuple):
    """The part of a statement that concerns one partition. ``effect`` raises FencedError and changes nothing.

    ``check`` raises RefusedError, before any partition is changed.
    """

    what: str
    effect: Callable[[], Any]
    heavy: bool = False
    check: Callable[[], None] = lambda: None


class RolledBackError(Exception):
    """The server answered that it rolled a statement back."""


class HeldElsewhereError(Exception):
    """Another transaction holds a partition's row, so a statement for several left it out."""


class SimulatedCommitter:
    """Runs one kind of statement for the partitions of one process in one database, such as commits.

    ``wait`` is the longest time that a statement waits for a free connection: what comes meanwhile goes with the next.
    ``rolled_back`` tells how likely the server rolls a statement for several partitions back.
    """

    def __init__(
        self, database: "Database", wait: float = 0.0, rolled_back: float = 0.0, random: Random | None = None
    ) -> None:
        self._database = database
        self.wait = wait
        self.sizes: list[int] = []  # of the groups so far
        self._rolled_back = rolled_back
        self._random = random or Random(1)
        self._grouper: Grouper[Statement, Any] = Grouper(self._run, most_items=10, most_weight=100, heavy=100)

    async def run(self, statement: Statement) -> Any:
        """Run a statement for one partition. Errors are those of the Store port."""
        return await self._grouper.submit(statement, 100 if statement.heavy else 1)

    async def _run(self, group: Sequence[Statement]) -> Sequence[Any]:
        self.sizes.append(len(group))
        database = self._database
        if self.wait:
            await asyncio.sleep(self.wait * self._random.random())
        branch = database.branch_of(current_process())
        what = ", ".join(one.what for one in group)
        try:
            return await database.server.call(
                what, lambda: database.served(branch, lambda: self._apply(group))
            )
        except RefusedError as error:
            if len(group) == 1:
                raise
            raise UndoneError(error) from error
        except RolledBackError as error:
            raise UndoneError(UnavailableError(str(error))) from error
        except UnavailableError as error:
            return self._in_doubt(error, group)

    def _in_doubt(self, error: UnavailableError, group: Sequence[Statement]) -> Sequence[Any]:
        return [UnavailableError(str(error)) for _ in group]

    def _apply(self, group: Sequence[Statement]) -> Sequence[Any]:
        if len(group) > 1 and self._random.random() < self._rolled_back:
            raise RolledBackError("the server rolled the statement back")
        for one in group:
            one.check()
        return [_outcome(one) for one in group]


class SimulatedAcquirer(SimulatedCommitter):
    """Runs acquisitions. A group in doubt is repeated one by one, and leaves rows out that others hold."""

    @override
    async def run(self, statement: Statement) -> Any:
        try:
            return await super().run(statement)
        except HeldElsewhereError:
            return await self._grouper.run_alone(statement)

    @override
    def _in_doubt(self, error: UnavailableError, group: Sequence[Statement]) -> Sequence[Any]:
        raise UndoneError(error) from error

    @override
    def _apply(self, group: Sequence[Statement]) -> Sequence[Any]:
        held = {one.what for one in group if len(group) > 1 and self._random.random() < self._rolled_back}
        outcomes = iter(super()._apply([one for one in group if one.what not in held]))
        return [HeldElsewhereError() if one.what in held else next(outcomes) for one in group]


@dataclass(frozen=True, slots=True)
class Groups:
    """What the owners of one process run together in one database, by the kind of statement."""

    commits: SimulatedCommitter
    acquisitions: SimulatedAcquirer
    claims: SimulatedCommitter
    positions: SimulatedCommitter

    @classmethod
    def of(
        cls, database: "Database", wait: float = 0.0, rolled_back: float = 0.0, random: Random | None = None
    ) -> "Groups":
        """The parameters are those of :class:`SimulatedCommitter`."""
        options = (database, wait, rolled_back, random or Random(1))
        return cls(
            SimulatedCommitter(*options),
            SimulatedAcquirer(*options),
            SimulatedCommitter(*options),
            SimulatedCommitter(*options),
        )

    def hurry(self) -> None:
        """Let nothing wait for connections any longer."""
        for one in (self.commits, self.acquisitions, self.claims, self.positions):
            one.wait = 0.0


def _outcome(one: Statement) -> Any:
    try:
        return one.effect()
    except FencedError as error:
        return error
