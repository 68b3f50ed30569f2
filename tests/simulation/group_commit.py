"""Group commit against a simulated Postgres. What forms the groups is the code that does so for the real one.

A statement for several batches lands as a whole, and judges each of them by itself; or the server rolls it back. Unlike
the real server, this one may lose some of them in a failover and keep others.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.loop import current_process

from waypost_worker.partition.grouping import Grouper, UndoneError
from waypost_worker.partition.ports import FencedError, UnavailableError

if TYPE_CHECKING:
    from tests.simulation.database import Database


class BatchStatement(NamedTuple):
    """The part of a statement that commits one partition's batch. ``effect`` raises FencedError and changes nothing."""

    what: str
    effect: Callable[[], None]
    heavy: bool = False


class RolledBackError(Exception):
    """The server answered that it rolled a statement back."""


class SimulatedCommitter:
    """Commits for the partitions of one process in one database.

    ``wait`` is the longest time that a statement waits for a free connection: what comes meanwhile goes with the next.
    ``rolled_back`` tells how likely the server rolls a statement for several batches back.
    """

    def __init__(
        self, database: "Database", wait: float = 0.0, rolled_back: float = 0.0, random: Random | None = None
    ) -> None:
        self._database = database
        self.wait = wait
        self._rolled_back = rolled_back
        self._random = random or Random(1)
        self._grouper: Grouper[BatchStatement, None] = Grouper(
            self._run, most_items=10, most_weight=100, heavy=100
        )

    async def commit(self, batch: BatchStatement) -> None:
        """Commit a batch. Errors are those of the Store port."""
        await self._grouper.submit(batch, 100 if batch.heavy else 1)

    async def _run(self, batches: Sequence[BatchStatement]) -> Sequence[Exception | None]:
        database = self._database
        if self.wait:
            await asyncio.sleep(self.wait * self._random.random())
        branch = database.branch_of(current_process())
        what = ", ".join(batch.what for batch in batches)
        try:
            return await database.server.call(
                what, lambda: database.served(branch, lambda: self._apply(batches))
            )
        except RolledBackError as error:
            raise UndoneError(UnavailableError(str(error))) from error
        except UnavailableError as error:
            return [UnavailableError(str(error)) for _ in batches]

    def _apply(self, batches: Sequence[BatchStatement]) -> Sequence[Exception | None]:
        if len(batches) > 1 and self._random.random() < self._rolled_back:
            raise RolledBackError("the server rolled the statement back")
        return [_outcome(batch) for batch in batches]


def _outcome(batch: BatchStatement) -> Exception | None:
    try:
        batch.effect()
    except FencedError as error:
        return error
    return None
