"""A small model of the exactly-once protocol: every interleaving of two owners, with crashes and lost commits.

Each step is one atomic request to Postgres or Kafka. Between any two steps another owner may act, a process may die or
stand still, Postgres may lose its last transactions, and the broker may forget producer epochs or give out a new
producer id. :func:`explore` visits every state that can be reached and reports the shortest way to a state in which a
result is doubled, out of order or missing. docs/model.md maps the steps to the code.

Owns the rules of the protocol as they are meant, without a line of the code that implements them. Pure.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from tests.model.search import Outcome, search

#: Guards of the protocol. A bug is one of them taken away, or one step done in another order.
BUGS: Final = frozenset(
    {
        "commit-without-compare-and-set",
        "append-without-epoch-check",
        "tail-read-before-the-fence",
        "position-without-its-command",
        "position-past-results-to-compare",
        "no-wait-after-a-new-producer-id",
        "compare-and-set-without-the-producer",
        "no-fence-after-a-lapsed-proof",
    }
)


class Row(NamedTuple):
    """What Postgres holds of the partition. ``emitted`` and ``results_offset`` are the results position (E, F)."""

    next_offset: int = 0
    epoch: int = 0
    emitted: int = -1
    results_offset: int = 0
    outbox: tuple[int, ...] = ()
    producer: "Fence | None" = None


class Fence(NamedTuple):
    """A producer id and epoch; in the results topic, a fence record."""

    producer_id: int
    producer_epoch: int


class Batch(NamedTuple):
    """A command as an owner commits it. ``new`` is the result that it adds to the outbox, if there is one."""

    epoch: int
    command: int
    producer: Fence | None
    emitted: int
    results_offset: int
    new: tuple[int, ...]

    def applied_to(self, row: Row) -> Row:
        """Return the row with this batch, whether or not it may be applied."""
        outbox = tuple(one for one in (*row.outbox, *self.new) if one > self.emitted)
        return Row(self.command + 1, row.epoch, self.emitted, self.results_offset, outbox, row.producer)


class Owner(NamedTuple):
    """One process that wants the partition. ``row`` is Postgres as it last saw it.

    ``step`` is what it has done: ``out``, ``claimed``, ``tail-read`` (by a bug, before the fence),
    ``initialized``, ``fenced``, ``waiting`` (for the owners of other producer ids), ``waited``, ``read``,
    ``recorded``, ``running``, or ``sending`` (an append was checked and has not been sent yet, for however long).
    ``highest`` is R, ``end`` the results offset it expects next, and ``owed`` the committed results that it still has
    to append. ``proof`` is how old its last proof of ownership may be: ``fresh``; ``old``, older than the fence of
    another owner; or ``expired``, once that one has waited. ``lapsed`` says that it went without proof for so long
    and then proved its ownership again. ``committing`` and ``appending`` say that it waits for the answer to a request
    that it shares with another partition (tests/model/groups.py).
    """

    step: str = "out"
    row: Row = Row()
    producer_id: int = -1
    producer_epoch: int = -1
    highest: int = -1
    emitted: int = -1
    end: int = 0
    owed: tuple[int, ...] = ()
    proof: str = "fresh"
    lapsed: bool = False
    committing: bool = False
    appending: bool = False

    @property
    def fence(self) -> Fence:
        """The producer id and epoch that it appends under."""
        return Fence(self.producer_id, self.producer_epoch)

    def proved(self) -> "Owner":
        """Note that Postgres just took a statement that only an owner can succeed with."""
        return self._replace(proof="fresh", lapsed=self.lapsed or self.proof == "expired")

    def committed(self, batch: Batch) -> "Owner":
        """Note that Postgres took a batch."""
        seen = self.row._replace(next_offset=batch.command + 1)
        return self.proved()._replace(row=seen, owed=self.owed + batch.new, committing=False)

    def appended(self) -> "Owner":
        """Note that the first result that it owed is where it was expected."""
        return self._replace(
            step="running", emitted=self.owed[0], end=self.end + 1, owed=self.owed[1:], appending=False
        )


class World(NamedTuple):
    """Everything there is. ``results`` holds fence records, and results as the offsets of their commands."""

    row: Row
    history: tuple[Row, ...]
    results: tuple[Fence | int, ...]
    highest_epochs: tuple[tuple[int, int], ...]
    coordinator: tuple[int, int]
    owners: tuple[Owner, ...]
    losses: int
    forgets: int
    new_ids: int
    claims: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a world to explore: commands in the log, and how often each disturbance may happen.

    ``restorable`` is how many transactions Postgres can lose at once.
    """

    commands: int = 2
    losses: int = 0
    forgets: int = 0
    new_ids: int = 0
    claims: int = 3
    restorable: int = 2
    owners: int = 2


def explore(limits: Limits, bug: str | None = None) -> Outcome:
    """Visit every reachable state, nearest first, and stop at the first unsound one."""
    if bug is not None and bug not in BUGS:
        raise ValueError(f"unknown bug {bug!r}; known are {', '.join(sorted(BUGS))}")
    return search(start(limits), partial(successors, limits=limits, bug=bug), unsound)


def start(limits: Limits) -> World:
    """Return the world before anybody has claimed the partition."""
    return World(
        Row(),
        (),
        (),
        (),
        (0, -1),
        (Owner(),) * limits.owners,
        limits.losses,
        limits.forgets,
        limits.new_ids,
        limits.claims,
    )


def unsound(world: World) -> str | None:
    """Say what a state breaks: a result is doubled, out of order or will be missing, or can never be compared."""
    answered = [one for one in world.results if not isinstance(one, Fence)]
    if answered != sorted(set(answered)):
        return f"results doubled or out of order: {answered}"
    for command in range(world.row.next_offset):
        if command not in answered and command not in world.row.outbox:
            return f"command {command} was applied, and is neither answered nor in the outbox; results: {answered}"
    for result in world.results[: world.row.results_offset]:
        if not isinstance(result, Fence) and result >= world.row.next_offset:
            return f"the result of {result} precedes the results position, so no owner will compare it"
    return None


def successors(world: World, limits: Limits, bug: str | None) -> Iterator[tuple[str, World]]:
    """Yield every step that can happen next, with a name."""
    for number, owner in enumerate(world.owners):
        step = Step(world, number, limits, bug)
        if owner.step == "out":
            yield from step.claim()
            continue
        yield f"{number} dies", step.leave()
        match owner.step:
            case "claimed":
                yield from (
                    step.read_tail_early() if bug == "tail-read-before-the-fence" else step.initialize()
                )
            case "tail-read":
                yield from step.fence_late()
            case "initialized":
                yield from step.fence()
            case "fenced":
                yield from step.read_tail()
            case "waiting":
                yield from step.wait()
            case "waited":
                yield from step.fence_again()
            case "read":
                yield from step.record()
            case "recorded":
                yield from step.save_position()
            case _:
                yield from () if owner.appending else step.append()
                yield from () if owner.committing else step.commit()
    if world.losses:
        for back in range(1, len(world.history) + 1):
            yield (
                f"Postgres loses its last {back} transactions",
                world._replace(
                    row=world.history[-back],
                    history=world.history[:-back] if world.losses > 1 else (),
                    losses=world.losses - 1,
                ),
            )
    if world.forgets and world.highest_epochs:
        yield (
            "the broker forgets producer epochs",
            world._replace(highest_epochs=(), forgets=world.forgets - 1),
        )


class Step:
    """The steps that one owner can take in one world."""

    def __init__(self, world: World, number: int, limits: Limits, bug: str | None) -> None:
        self._world = world
        self._number = number
        self._owner = world.owners[number]
        self._limits = limits
        self._bug = bug

    def claim(self) -> Iterator[tuple[str, World]]:
        """Acquire, step 1: raise the epoch in Postgres."""
        if self._world.claims:
            row = self._world.row._replace(epoch=self._world.row.epoch + 1)
            claimed = Owner(step="claimed", row=row)
            yield f"{self._number} claims", self._after(claimed, row=row, claims=self._world.claims - 1)

    def initialize(self) -> Iterator[tuple[str, World]]:
        """Step 2, first half: get a producer epoch from the coordinator, which may have given out a new id."""
        producer_id, epoch = self._world.coordinator
        taken = self._owner._replace(step="initialized", producer_id=producer_id, producer_epoch=epoch + 1)
        yield f"{self._number} gets an epoch", self._after(taken, coordinator=(producer_id, epoch + 1))
        if self._world.new_ids:
            renewed = taken._replace(producer_id=producer_id + 1, producer_epoch=0)
            yield (
                f"{self._number} gets a new producer id",
                self._after(renewed, coordinator=(producer_id + 1, 0), new_ids=self._world.new_ids - 1),
            )

    def fence(self) -> Iterator[tuple[str, World]]:
        """Step 2, second half: append the fence record."""
        owner = self._owner
        if owner.proof == "expired" or not self._accepted():
            yield f"{self._number} is refused its fence", self.leave()
            return
        results = (*self._world.results, owner.fence)
        fenced = owner._replace(step="fenced", end=len(results))
        after = self._after(fenced, results=results, highest_epochs=self._noted())
        yield f"{self._number} fences", self._aged(after, "fresh", "old")

    def read_tail(self) -> Iterator[tuple[str, World]]:
        """Step 3: read what was emitted. If producer ids differ, it is read again after a wait."""
        owner = self._owner
        tail = self._world.results[owner.row.results_offset : owner.end]
        ids = {one.producer_id for one in (*tail, owner.row.producer) if isinstance(one, Fence)}
        if ids - {owner.producer_id} and self._bug != "no-wait-after-a-new-producer-id":
            yield f"{self._number} finds another producer id", self._after(owner._replace(step="waiting"))
            return
        read = owner._replace(step="read", highest=_highest(owner.row, tail))
        yield f"{self._number} reads the tail", self._after(read)

    def wait(self) -> Iterator[tuple[str, World]]:
        """Outlast every append whose proof was checked before the fence, and every proof that is older than it."""
        if any(other.step == "sending" and other.proof != "fresh" for _, other in self._others()):
            return
        yield from self._record("waited", lambda world: self._aged(world, "old", "expired"))

    def record(self) -> Iterator[tuple[str, World]]:
        """Record the producer id and epoch, unless another owner of the same epoch has recorded its own."""
        yield from self._record("recorded", lambda world: world)

    def _record(self, step: str, then: Callable[[World], World]) -> Iterator[tuple[str, World]]:
        owner, row = self._owner, self._world.row
        if row.epoch != owner.row.epoch or not self._same_producer():
            yield f"{self._number} is refused its record", self.leave()
            return
        saved = row._replace(producer=owner.fence)
        seen = owner.row._replace(producer=owner.fence)
        recorded = owner.proved()._replace(step=step, row=seen)
        yield f"{self._number} records its producer", then(self._after(recorded, row=saved))

    def fence_again(self) -> Iterator[tuple[str, World]]:
        """After the wait, only an append tells for sure where the results end."""
        owner = self._owner
        if owner.proof == "expired" or not self._accepted():
            yield f"{self._number} is refused its second fence", self.leave()
            return
        results = (*self._world.results, owner.fence)
        tail = results[owner.row.results_offset :]
        read = owner._replace(
            step="recorded", highest=_highest(owner.row, tail), end=len(results), lapsed=False
        )
        yield (
            f"{self._number} fences and reads again",
            self._after(read, results=results, highest_epochs=self._noted()),
        )

    def save_position(self) -> Iterator[tuple[str, World]]:
        """Steps 3 to 5: save the results position, and look at what the outbox owes."""
        owner, row = self._owner, self._world.row
        if (row.epoch, row.next_offset) != (
            owner.row.epoch,
            owner.row.next_offset,
        ) or not self._same_producer():
            yield f"{self._number} was fenced in Postgres", self.leave()
            return
        owed = tuple(one for one in owner.row.outbox if one > owner.highest)
        running = owner.proved()._replace(step="running", emitted=owner.highest, owed=owed)
        emitted, results_offset = self._position(running, row.next_offset)
        outbox = tuple(one for one in row.outbox if one > emitted)
        saved = Row(row.next_offset, row.epoch, emitted, results_offset, outbox, row.producer)
        yield f"{self._number} saves the position", self._after(running, row=saved)

    def append(self) -> Iterator[tuple[str, World]]:
        """Emit one result: check the proof, then send. Anything may happen between the two."""
        owner = self._owner
        if owner.step == "running":
            if not owner.owed:
                return
            if owner.proof == "expired":
                yield f"{self._number} finds its proof too old", self.leave()
            elif owner.lapsed and self._bug != "no-fence-after-a-lapsed-proof":
                yield self._fence_a_lapse()
            else:
                yield (
                    f"{self._number} is about to append {owner.owed[0]}",
                    self._after(owner._replace(step="sending")),
                )
            return
        if not self._accepted():
            yield f"{self._number} is refused its append", self.leave()
            return
        command = owner.owed[0]
        results = (*self._world.results, command)
        noted = self._noted()
        if len(self._world.results) == owner.end:
            yield (
                f"{self._number} appends {command}",
                self._after(owner.appended(), results=results, highest_epochs=noted),
            )
        gone = self._after(Owner(), results=results, highest_epochs=noted)
        yield f"{self._number} appends {command}, and its term ends", gone

    def _fence_a_lapse(self) -> tuple[str, World]:
        """Append the fence record again: it must land where the next result would."""
        owner = self._owner
        if not self._accepted():
            return f"{self._number} is refused its fence", self.leave()
        expected = len(self._world.results) == owner.end
        fenced = owner._replace(end=owner.end + 1, lapsed=False) if expected else Owner()
        results = (*self._world.results, owner.fence)
        after = self._after(fenced, results=results, highest_epochs=self._noted())
        return f"{self._number} fences after a lapse", after

    def commit(self) -> Iterator[tuple[str, World]]:
        """Apply the next command: one transaction, compared and set on epoch and offset."""
        if (batch := self.batch()) is None:
            return
        if not self.passes(batch) and self._bug != "commit-without-compare-and-set":
            yield f"{self._number} is refused its commit", self.leave()
            return
        moved = self._after(self._owner.committed(batch), row=batch.applied_to(self._world.row))
        yield f"{self._number} commits {batch.command}", moved

    def batch(self) -> Batch | None:
        """Return what this owner would commit next."""
        owner = self._owner
        command = owner.row.next_offset
        if command >= self._limits.commands or len(owner.owed) >= 2:
            return None
        new = () if command <= owner.highest else (command,)
        return Batch(owner.row.epoch, command, owner.row.producer, *self._position(owner, command + 1), new)

    def passes(self, batch: Batch) -> bool:
        """Compare, before a batch is set."""
        row = self._world.row
        known = batch.producer == row.producer or self._bug == "compare-and-set-without-the-producer"
        return (row.epoch, row.next_offset) == (batch.epoch, batch.command) and known

    def saved(self, world: World, row: Row) -> World:
        """Change the row, and remember the old one for a loss of Postgres's last transactions."""
        if row == world.row or not world.losses:
            return world._replace(row=row)
        return world._replace(row=row, history=(*world.history, world.row)[-self._limits.restorable :])

    def read_tail_early(self) -> Iterator[tuple[str, World]]:
        """Read the tail before the fence: a bug."""
        tail = self._world.results[self._owner.row.results_offset :]
        read = self._owner._replace(step="tail-read", highest=_highest(self._owner.row, tail))
        yield f"{self._number} reads the tail too early", self._after(read)

    def fence_late(self) -> Iterator[tuple[str, World]]:
        """Fence after the tail was read: the second half of that bug."""
        producer_id, epoch = self._world.coordinator
        fenced = self._owner._replace(step="read", producer_id=producer_id, producer_epoch=epoch + 1)
        results = (*self._world.results, Fence(producer_id, epoch + 1))
        yield (
            f"{self._number} fences too late",
            self._after(
                fenced._replace(end=len(results)),
                results=results,
                coordinator=(producer_id, epoch + 1),
                highest_epochs=note(self._world.highest_epochs, Fence(producer_id, epoch + 1)),
            ),
        )

    def leave(self) -> World:
        """Lose everything that this owner held in memory."""
        return self._after(Owner())

    def _position(self, owner: Owner, next_offset: int) -> tuple[int, int]:
        # Until the log is past R, the stored results position stays the one that was found.
        if next_offset <= owner.highest and self._bug != "position-past-results-to-compare":
            return owner.row.emitted, owner.row.results_offset
        if self._bug == "position-without-its-command":
            return owner.row.emitted, owner.end
        return owner.emitted, owner.end

    def _accepted(self) -> bool:
        if self._bug == "append-without-epoch-check":
            return True
        known = dict(self._world.highest_epochs).get(self._owner.producer_id, -1)
        return known <= self._owner.producer_epoch

    def _noted(self) -> tuple[tuple[int, int], ...]:
        return note(self._world.highest_epochs, self._owner.fence)

    def _others(self) -> Iterator[tuple[int, Owner]]:
        return ((at, one) for at, one in enumerate(self._world.owners) if at != self._number)

    def _same_producer(self) -> bool:
        if self._bug == "compare-and-set-without-the-producer":
            return True
        return self._world.row.producer == self._owner.row.producer

    def _aged(self, world: World, before: str, after: str) -> World:
        """Let the proofs of all others that were this old become older."""
        if not self._limits.new_ids:  # then nobody ever waits, and age makes no difference
            return world
        owners = tuple(
            one._replace(proof=after)
            if at != self._number and one.step != "out" and one.proof == before
            else one
            for at, one in enumerate(world.owners)
        )
        return world._replace(owners=owners)

    def _after(
        self,
        owner: Owner,
        row: Row | None = None,
        results: tuple[Fence | int, ...] | None = None,
        highest_epochs: tuple[tuple[int, int], ...] | None = None,
        coordinator: tuple[int, int] | None = None,
        **budgets: int,
    ) -> World:
        world = self._world if row is None else self.saved(self._world, row)
        return world._replace(
            owners=(*world.owners[: self._number], owner, *world.owners[self._number + 1 :]),
            row=world.row,
            history=world.history,
            results=world.results if results is None else results,
            highest_epochs=world.highest_epochs if highest_epochs is None else highest_epochs,
            coordinator=world.coordinator if coordinator is None else coordinator,
            **budgets,
        )


def _highest(row: Row, tail: tuple[Fence | int, ...]) -> int:
    return max([row.emitted, *(one for one in tail if not isinstance(one, Fence))])


def note(known: tuple[tuple[int, int], ...], fence: Fence) -> tuple[tuple[int, int], ...]:
    """Return the highest epoch of each producer id, after a batch with this one."""
    return tuple(sorted({**dict(known), fence.producer_id: fence.producer_epoch}.items()))
