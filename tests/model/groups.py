"""A model of groups: two partitions whose commits share one statement, and whose appends share one Produce request.

Each of two workers may own both partitions. Within a partition, everything happens as in tests/model/protocol.py. In
addition, a worker whose owners both have something to commit or append may send it in one request. A statement judges
each batch by itself. It may fail as a whole before or after it takes effect, and then each batch is repeated alone. A
Produce request takes effect in one partition after the other, its answer may be lost, and a batch may have to be sent
again. An owner may leave while its request is under way.

Partitions meet only in these requests. So while a partition cannot take part in one, only its own steps are explored.
They commute with those of the other, and each partition still goes through all of its states (a persistent set).
Pure.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Final, NamedTuple

from tests.model.protocol import Batch, Fence, Limits, Owner, Step, World, note, start, successors, unsound
from tests.model.search import Outcome, search

#: One guard of groups is taken away.
GROUP_BUGS: Final = frozenset(
    {
        "failed-batch-applied-along-with-another",
        "commit-answered-for-another-partition",
        "append-answered-for-another-partition",
        "refused-commit-fails-the-group",
        "refused-append-fails-the-group",
        "repeated-commit-without-compare-and-set",
        "repeated-append-with-a-new-sequence",
    }
)
_BOTH: Final = (0, 1)


class Sent(NamedTuple):
    """A result in a Produce request.

    ``answer`` is what its leader will answer: ``none`` as long as it has not decided, ``landed``, ``refused`` because
    of the epoch, or ``passed over`` by an error that passes, such as a change of leaders. ``landed`` is the offset if
    it is in the log.
    """

    fence: Fence
    command: int
    answer: str = "none"
    landed: int = -1


class Requests(NamedTuple):
    """What one worker has under way, by partition. ``alone`` says that batches of a failed statement are repeated, each
    by itself; ``again`` that results are sent for the second and last time.
    """

    batches: tuple[Batch | None, Batch | None] = (None, None)
    alone: bool = False
    results: tuple[Sent | None, Sent | None] = (None, None)
    again: bool = False


class Pair(NamedTuple):
    """Two partitions, and the requests of each worker. ``wronged`` is the partition of an owner that lost its term
    although nothing happened to it, or -1.
    """

    worlds: tuple[World, World]
    requests: tuple[Requests, Requests] = (Requests(), Requests())
    wronged: int = -1


def explore_groups(
    limits: tuple[Limits, Limits], bug: str | None = None, *, progress: bool = True, reduced: bool = True
) -> Outcome:
    """Visit every state of two partitions that share requests; ``limits`` bound each of them.

    Without ``progress``, an owner may lose its term for nothing. If not ``reduced``, steps are taken in every order,
    even if they concern different partitions.
    """
    if bug is not None and bug not in GROUP_BUGS:
        raise ValueError(f"unknown bug {bug!r}; known are {', '.join(sorted(GROUP_BUGS))}")
    if any(one.new_ids or one.forgets for one in limits):
        raise ValueError("groups are modeled only with one producer id, which the broker remembers")
    begin = Pair((start(limits[0]), start(limits[1])))
    # A state of one partition occurs together with many of the other one.
    judge = cache(lambda world, at: unsound(world) or _misled(world, limits[at]))
    steps = cache(lambda world, at: list(successors(world, limits[at], None)))
    every = _Steps(begin, steps, limits, bug)
    return search(
        begin, every.reduced if reduced else every.all, partial(_unsound, judge=judge, progress=progress)
    )


def _unsound(pair: Pair, judge: Callable[[World, int], str | None], progress: bool) -> str | None:
    if pair.wronged >= 0 and progress:
        return f"partition {pair.wronged}: the term of its owner ended although nothing happened to it"
    for at in _BOTH:
        if (violation := judge(pair.worlds[at], at)) is not None:
            return f"partition {at}: {violation}"
    return None


def _misled(world: World, limits: Limits) -> str | None:
    """Say what subscribers or readers see that Postgres never applied."""
    row = world.row
    applied = sorted({one for one in row.outbox if one < row.next_offset})
    if list(row.outbox) != applied:
        return f"the outbox has {list(row.outbox)}, which are not results of commands below {row.next_offset}"
    answered = [one for one in world.results if not isinstance(one, Fence)]
    if not limits.losses and answered and answered[-1] >= row.next_offset:
        return f"command {answered[-1]} was answered and not applied"
    return None


class _Steps:
    """All steps of two partitions. ``steps`` returns those that a partition can take by itself."""

    def __init__(
        self,
        begin: Pair,
        steps: Callable[[World, int], list[tuple[str, World]]],
        limits: tuple[Limits, Limits],
        bug: str | None,
    ) -> None:
        self._begin = begin
        self._steps = steps
        self._limits = limits
        self._bug = bug

    def reduced(self, pair: Pair) -> Iterator[tuple[str, Pair]]:
        """Yield every step that can happen next, except those that another order of the same steps covers."""
        moves = self._moves(pair)
        for at in _BOTH:
            if any(move.may_share(at) for move in moves):
                continue
            if own := list(self._of_one(pair, at, moves)):
                # At the beginning, the workers are alike: let the first one claim first.
                yield from own[:1] if pair == self._begin else own
                return
        yield from self.all(pair)

    def all(self, pair: Pair) -> Iterator[tuple[str, Pair]]:
        """Yield every step that can happen next."""
        moves = self._moves(pair)
        for at in _BOTH:
            yield from self._of_one(pair, at, moves)
        for move in moves:
            yield from move.together()

    def _moves(self, pair: Pair) -> list["_Move"]:
        return [_Move(pair, worker, self._limits, self._bug) for worker in _BOTH]

    def _of_one(self, pair: Pair, at: int, moves: list["_Move"]) -> Iterator[tuple[str, Pair]]:
        for action, world in self._steps(pair.worlds[at], at):
            yield f"partition {at}: {action}", _with_world(pair, at, world)
        for move in moves:
            yield from move.in_one(at)


class _Move:
    """The steps that the requests of one worker can take."""

    def __init__(self, pair: Pair, worker: int, limits: tuple[Limits, Limits], bug: str | None) -> None:
        self._pair = pair
        self._worker = worker
        self._limits = limits
        self._bug = bug
        self._requests = pair.requests[worker]

    def may_share(self, at: int) -> bool:
        """Return whether this partition takes part in a request of both, or would if the other one were ready."""
        requests = self._requests
        if None not in requests.results or (requests.batches[at] is not None and not requests.alone):
            return True
        other = self._pair.worlds[1 - at]
        if other.owners[self._worker].step == "out" and not other.claims:
            return False
        return self._batch(at) is not None or self._result(at) is not None

    def together(self) -> Iterator[tuple[str, Pair]]:
        """Yield the steps of requests that concern both partitions."""
        requests = self._requests
        if requests.batches == (None, None):
            yield from self._send_batches()
        elif not requests.alone:
            yield from self._run_statement()
        if requests.results == (None, None):
            yield from self._send_results()
        elif None not in requests.results:
            yield from self._answer_results()

    def in_one(self, at: int) -> Iterator[tuple[str, Pair]]:
        """Yield the steps of requests that concern only this partition."""
        requests, name = self._requests, f"partition {at}: {self._worker}"
        batch, sent = requests.batches[at], requests.results[at]
        if requests.alone and batch is not None:
            yield from self._repeat(at, batch, name)
        if sent is not None and sent.answer == "none":
            yield from self._decide(at, sent, name)
        elif sent is not None and requests.results[1 - at] is None:
            yield f"{name} gets its answer", self._settled([at], {at: sent})

    # Commits

    def _batch(self, at: int) -> Batch | None:
        owner = self._owner(at)
        if owner.step not in ("running", "sending") or owner.committing:
            return None
        return self._step(at).batch()

    def _send_batches(self) -> Iterator[tuple[str, Pair]]:
        batches = self._batch(0), self._batch(1)
        if None not in batches:
            pair = self._asking(self._requests._replace(batches=batches), "committing")
            yield f"{self._worker} sends both batches in one statement", pair

    def _run_statement(self) -> Iterator[tuple[str, Pair]]:
        """Let Postgres take the statement, or not, and the worker learn of it, or not."""
        batches = [one for one in self._requests.batches if one is not None]
        passed = [self._step(at).passes(batch) for at, batch in enumerate(batches)]
        after = self._pair
        for at, batch in enumerate(batches):
            after = _with_world(after, at, self._applied(after.worlds[at], at, batch, passed))
        told = passed[::-1] if self._bug == "commit-answered-for-another-partition" else passed
        if self._bug == "refused-commit-fails-the-group" and not all(passed):
            told = [False, False]
        answered = self._done(after, batches=(None, None))
        for at, batch in enumerate(batches):
            answered = self._told(answered, at, batch, told[at])
        said = " and ".join("passes" if one else "is refused" for one in passed)
        yield f"{self._worker}'s statement: {said}", self._judged(answered, passed)
        lost = self._done(after, batches=(None, None))
        for at in _BOTH:
            lost = self._ended(lost, at, "committing")
        yield f"{self._worker}'s statement: {said}, and the answer is lost", lost
        yield f"{self._worker}'s statement is rolled back", self._to_repeat(self._pair)
        yield f"{self._worker}'s statement: {said}, and an error hides the answer", self._to_repeat(after)

    def _applied(self, world: World, at: int, batch: Batch, passed: list[bool]) -> World:
        row = world.row
        if passed[at]:
            row = batch.applied_to(row)
        elif self._bug == "failed-batch-applied-along-with-another" and any(passed):
            row = row._replace(outbox=(*row.outbox, *batch.new))
        return self._step(at).saved(world, row)

    def _told(self, pair: Pair, at: int, batch: Batch, passed: bool) -> Pair:
        owner = self._owner(at)
        if not owner.committing:
            return pair
        return self._with_owner(pair, at, owner.committed(batch) if passed else Owner())

    def _to_repeat(self, pair: Pair) -> Pair:
        """Repeat each batch alone whose owner still waits."""
        first, second = self._requests.batches
        batches = (
            first if self._owner(0).committing else None,
            second if self._owner(1).committing else None,
        )
        return self._done(pair, batches=batches, alone=batches != (None, None))

    def _repeat(self, at: int, batch: Batch, name: str) -> Iterator[tuple[str, Pair]]:
        done = self._done(self._pair, batches=_without(self._requests.batches, at))
        done = self._done(done, alone=self._requests.batches[1 - at] is not None)
        if not self._owner(at).committing:  # nobody repeats it
            yield f"{name} does not repeat its batch", done
            return
        world = self._pair.worlds[at]
        if self._step(at).passes(batch):
            row = batch.applied_to(world.row)
        elif self._bug == "repeated-commit-without-compare-and-set":
            outbox = (*world.row.outbox, *batch.new)
            row = world.row._replace(next_offset=batch.command + 1, outbox=outbox)
        else:
            yield f"{name} is refused its repeated batch", self._told(done, at, batch, False)
            return
        applied = _with_world(done, at, self._step(at).saved(world, row))
        yield f"{name} repeats its batch alone", self._told(applied, at, batch, True)

    # Appends

    def _result(self, at: int) -> Sent | None:
        owner = self._owner(at)
        return Sent(owner.fence, owner.owed[0]) if owner.step == "sending" and not owner.appending else None

    def _send_results(self) -> Iterator[tuple[str, Pair]]:
        results = self._result(0), self._result(1)
        if None not in results:
            pair = self._asking(self._requests._replace(results=results, again=False), "appending")
            yield f"{self._worker} sends both results in one request", pair

    def _decide(self, at: int, sent: Sent, name: str) -> Iterator[tuple[str, Pair]]:
        """Let a leader check the epoch, and then the sequence."""
        world = self._pair.worlds[at]
        if dict(world.highest_epochs)[sent.fence.producer_id] > sent.fence.producer_epoch:
            yield f"{name}'s result is refused", self._decided(self._pair, at, sent, "refused")
            return
        if sent.landed >= 0 and self._bug != "repeated-append-with-a-new-sequence":
            yield f"{name}'s result is there already", self._decided(self._pair, at, sent, "landed")
            return
        if not self._requests.again:
            yield f"{name}'s result is passed over", self._decided(self._pair, at, sent, "passed over")
        landed = sent._replace(landed=len(world.results))
        grown = world._replace(
            results=(*world.results, sent.command),
            highest_epochs=note(world.highest_epochs, sent.fence),
        )
        yield (
            f"{name}'s result lands",
            self._decided(_with_world(self._pair, at, grown), at, landed, "landed"),
        )

    def _answer_results(self) -> Iterator[tuple[str, Pair]]:
        """Answer for both partitions, or lose the answer, once each leader has decided."""
        first, second = self._requests.results
        if first is None or second is None or "none" in (first.answer, second.answer):
            return
        answers = {0: first, 1: second}
        if self._bug == "append-answered-for-another-partition":
            answers = {0: second, 1: first}
        if self._bug == "refused-append-fails-the-group" and "refused" in (first.answer, second.answer):
            answers = {at: one._replace(answer="refused") for at, one in answers.items()}
        accepted = [self._is_accepted(0, first), self._is_accepted(1, second)]
        yield f"{self._worker} gets both answers", self._judged(self._settled([0, 1], answers), accepted)
        if not self._requests.again:
            yield f"{self._worker} gets no answer, and sends again", self._sent_again([0, 1], {})
        lost = self._done(self._pair, results=(None, None), again=False)
        for at in _BOTH:
            lost = self._ended(lost, at, "appending")
        yield f"{self._worker} gets no answer in time", lost

    def _settled(self, which: list[int], answers: dict[int, Sent]) -> Pair:
        """Give each owner its answer, and send again what was passed over."""
        return self._sent_again([at for at in which if answers[at].answer == "passed over"], answers)

    def _sent_again(self, which: list[int], answers: dict[int, Sent]) -> Pair:
        results = list(self._requests.results)
        pair = self._pair
        for at in _BOTH:
            sent = results[at]
            if sent is None:
                continue
            wanted = self._owner(at).appending
            results[at] = sent._replace(answer="none") if at in which and wanted else None
            if at not in which and wanted:
                pair = self._answered(pair, at, answers[at])
        again = results != [None, None]
        return self._done(pair, results=(results[0], results[1]), again=again)

    def _answered(self, pair: Pair, at: int, sent: Sent) -> Pair:
        owner = self._owner(at)
        return self._with_owner(pair, at, owner.appended() if self._is_accepted(at, sent) else Owner())

    def _is_accepted(self, at: int, sent: Sent) -> bool:
        """Return whether this answer lets the owner continue: its result landed in place, or is to be sent again."""
        return sent.answer == "passed over" or (
            sent.answer == "landed" and sent.landed == self._owner(at).end
        )

    def _decided(self, pair: Pair, at: int, sent: Sent, answer: str) -> Pair:
        first, second = self._requests.results
        sent = sent._replace(answer=answer)
        return self._done(pair, results=(sent, second) if at == 0 else (first, sent))

    # Both

    def _judged(self, after: Pair, passed: list[bool]) -> Pair:
        """Note the partition whose owner lost its term although its own part of the request succeeded."""
        for at in _BOTH:
            before = self._owner(at)
            waited = before.committing or before.appending
            lost = after.worlds[at].owners[self._worker].step == "out"
            if passed[at] and waited and lost:
                return after._replace(wronged=at)
        return after

    def _owner(self, at: int) -> Owner:
        return self._pair.worlds[at].owners[self._worker]

    def _step(self, at: int) -> Step:
        return Step(self._pair.worlds[at], self._worker, self._limits[at], None)

    def _asking(self, requests: Requests, waiting: str) -> Pair:
        """Send a request of both owners, who wait for its answer."""
        pair = self._pair
        for at in _BOTH:
            changes: Any = {waiting: True}
            pair = self._with_owner(pair, at, self._owner(at)._replace(**changes))
        return self._with_requests(pair, requests)

    def _ended(self, pair: Pair, at: int, waiting: str) -> Pair:
        """End the term of an owner that waits for this."""
        return self._with_owner(pair, at, Owner()) if getattr(self._owner(at), waiting) else pair

    def _with_owner(self, pair: Pair, at: int, owner: Owner) -> Pair:
        world = pair.worlds[at]
        owners = (owner, world.owners[1]) if self._worker == 0 else (world.owners[0], owner)
        return _with_world(pair, at, world._replace(owners=owners))

    def _done(self, pair: Pair, **changes: Any) -> Pair:
        return self._with_requests(pair, pair.requests[self._worker]._replace(**changes))

    def _with_requests(self, pair: Pair, requests: Requests) -> Pair:
        first, second = pair.requests
        return pair._replace(requests=(requests, second) if self._worker == 0 else (first, requests))


def _with_world(pair: Pair, at: int, world: World) -> Pair:
    first, second = pair.worlds
    return Pair((world, second) if at == 0 else (first, world), pair.requests, pair.wronged)


def _without(batches: tuple[Batch | None, Batch | None], at: int) -> tuple[Batch | None, Batch | None]:
    return (None, batches[1]) if at == 0 else (batches[0], None)
