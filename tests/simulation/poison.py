"""A bug in every worker: certain commands make its code raise, until a version without the bug is at work.

Knows where the code of an owner decodes a command and decides on it. Recovery runs without the bug.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from tests.simulation.loop import current_process

from waypost_worker.partition import skips
from waypost_worker.partition.batch import Batch, Decoded, decode
from waypost_worker.partition.failure import FailingCommandError, UnexpectedError
from waypost_worker.partition.ports import OwnerError

if TYPE_CHECKING:
    from tests.simulation.broker import CommandRecord
    from tests.simulation.world import World


class PoisonError(Exception):
    """What the bug raises."""


class PoisonMemoryError(PoisonError, MemoryError):
    """The same, as too large a command would."""


class PoisonRecursionError(PoisonError, RecursionError):
    """The same, as too deep a command would."""


_KINDS: Final = (PoisonError, PoisonMemoryError, PoisonRecursionError)
_STEPS: Final = ("decode", "decide")


class Poison:
    """The poisonous commands of a world, and what owners say of them."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = Random(f"kinds of poison {world.plan.seed}")
        self._bad: dict[
            int, tuple[Any, str, type[PoisonError]]
        ] = {}  # by identity of the record, which is kept
        self._offsets: set[tuple[int, int]] = set()  # of all that ever were
        self.problems: list[str] = []

    def next_of(self, partition: int) -> None:
        """Let the next command of a partition be poisonous."""
        log = self._world.commands[partition]

        def appended(record: "CommandRecord") -> None:
            log.watch = None
            if not self._world.healed:
                self.put(partition, record)

        log.watch = appended

    def put(self, partition: int, record: "CommandRecord") -> None:
        """Let this command be poisonous."""
        step, kind = self._random.choice(_STEPS), self._random.choice(_KINDS)
        self._bad[id(record)] = (record, step, kind)
        self._offsets.add((partition, record.offset))
        self._world.say(f"p{partition} {record.offset} is poison: {kind.__name__} at {step}")

    def fix(self) -> None:
        """Give all workers a version without the bug."""
        self._world.say("the bug is fixed")
        self._bad.clear()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Put the bug into the code of owners."""
        add = Batch.add

        def bad_decode(record: Any, partition: int, partitions: int) -> Decoded:
            self._raise(record, "decode")
            return decode(record, partition, partitions)

        def bad_add(batch: Batch, decoded: Decoded) -> None:
            if decoded.action is not None:
                self._raise(decoded.record, "decide")
            add(batch, decoded)

        with ExitStack() as stack:
            stack.enter_context(patch.object(skips, "decode", bad_decode))
            stack.enter_context(patch.object(Batch, "add", bad_add))
            yield

    def _raise(self, record: Any, step: str) -> None:
        found = self._bad.get(id(record))
        if found is not None and found[1] == step and current_process() is not None:
            raise found[2](f"offset {record.offset}")

    def judge(self, partition: int, why: OwnerError | None, died: Callable[[str], None]) -> None:
        """Hold what an owner says against what is poisonous."""
        if isinstance(why, FailingCommandError):
            if (partition, why.offset) not in self._offsets:
                self.problems.append(f"refused at an innocent command: p{partition}: {why.offset}")
            if str(why.offset) not in str(why):
                self.problems.append(f"refused without naming the offset: p{partition}: {why}")
        elif isinstance(why, UnexpectedError):
            if not isinstance(why.__cause__, PoisonError):
                died(repr(why.__cause__))
            elif why.suspects is None or not any(
                (partition, offset) in self._offsets
                for offset in range(why.suspects.first, why.suspects.last + 1)
            ):
                self.problems.append(f"refused at an innocent command: p{partition}: {why.suspects}")
