"""What holds for every session whatever happened to it: order, limits, memory, restarts."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.generate import SESSION, lives, long_lives
from tests.properties.views import plain_decision, plain_state

from waypost.model.commands import Command
from waypost.model.decisions import (
    Accepted,
    Configured,
    Created,
    Decision,
    Deleted,
    Duplicate,
    Erased,
    Expired,
    Imported,
    Pinned,
    Unchanged,
    Unpinned,
)
from waypost.model.index import DEDUP_WINDOW, FORGET_ABOVE, Entry, SeenCommand, Session
from waypost.model.retention import RetentionPolicy
from waypost.model.session import DedupChanges, decide, evolve

DEFAULT = RetentionPolicy(max_checkpoints=12, compress_after=9, keep_recent=3)
many_examples = settings(deadline=None, max_examples=80)


def apply(session: Session, command: Command) -> tuple[Decision, DedupChanges | None]:
    decision = decide(session, command, DEFAULT)
    if isinstance(decision, Unchanged):
        return decision, None
    return decision, evolve(session, command, decision)


@many_examples
@given(lives)
def test_deciding_changes_nothing_and_a_refusal_changes_nothing(commands: list[Command]) -> None:
    session = Session(SESSION)
    for command in commands:
        before = plain_state(session)
        decision = decide(session, command, DEFAULT)
        assert plain_state(session) == before
        assert plain_decision(decide(session, command, DEFAULT)) == plain_decision(decision)
        if not isinstance(decision, Unchanged):
            evolve(session, command, decision)


@many_examples
@given(lives)
def test_folding_the_same_log_twice_gives_the_same_session_and_the_same_decisions(
    commands: list[Command],
) -> None:
    first, second = Session(SESSION), Session(SESSION)
    decisions = [plain_decision(apply(first, command)[0]) for command in commands]
    assert [plain_decision(apply(second, command)[0]) for command in commands] == decisions
    assert plain_state(first) == plain_state(second)


@many_examples
@given(lives)
def test_retention_keeps_its_promises_after_every_command(commands: list[Command]) -> None:
    session = Session(SESSION)
    for command in commands:
        pinned = {entry.number for entry in session.live() if entry.pinned}
        counter = session.counter
        decision, _ = apply(session, command)
        numbers = [entry.number for entry in session.live()]
        policy = session.policy or DEFAULT
        assert len(numbers) <= policy.max_checkpoints
        assert session.pins() <= policy.max_checkpoints - 2
        assert numbers == sorted(set(numbers)) == sorted(session.entries)
        assert numbers == session.live_in_order() == session.live_in_order(latest_first=True)[::-1]
        assert session.counter >= max([counter, *numbers])
        if isinstance(decision, Created):
            assert decision.entry.number == counter + 1 == numbers[-1]
        if isinstance(decision, Created | Pinned | Imported | Configured):
            assert pinned <= set(numbers)
        if isinstance(decision, Accepted):
            assert list(decision.removed) == sorted(set(decision.removed))
            assert not set(decision.removed) & set(numbers)


@many_examples
@given(lives)
def test_a_number_means_one_checkpoint_forever_unless_an_import_says_otherwise(
    commands: list[Command],
) -> None:
    session = Session(SESSION)
    made_by: dict[int, str | None] = {}
    for command in commands:
        decision, _ = apply(session, command)
        if isinstance(decision, Created):
            assert decision.entry.number not in made_by
        for entry in session.live():
            if isinstance(decision, Imported):
                made_by[entry.number] = entry.name
            assert made_by.setdefault(entry.number, entry.name) == entry.name


class Stored:
    """What a store keeps of a session, updated from decisions and from nothing else."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.remembered: dict[str, SeenCommand] = {}
        self.policy: RetentionPolicy | None = None
        self.counter = 0
        self.last_recorded_at: int | None = None
        self.erased_at: int | None = None

    def take(self, session: Session, decision: Accepted, memory: DedupChanges) -> None:
        match decision:
            case Created():
                self.entries[decision.entry.number] = replace(decision.entry)
            case Pinned() | Unpinned():
                self.entries[decision.number].pinned = isinstance(decision, Pinned)
            case Deleted():
                del self.entries[decision.number]
            case Imported():
                for placed in decision.placed:
                    if placed.entry is not None:
                        self.entries[placed.number] = replace(placed.entry)
            case Configured():
                self.policy = decision.policy
            case Erased():
                self.policy, self.erased_at = None, decision.erased_at
            case _:
                pass
        for number in decision.removed:
            del self.entries[number]
        for remembered in memory.added:
            assert remembered.command_id not in self.remembered
            self.remembered[remembered.command_id] = remembered
        if memory.forgotten_below is not None:
            below = memory.forgotten_below
            self.remembered = {i: r for i, r in self.remembered.items() if r.position >= below}
        self.counter, self.last_recorded_at = session.counter, session.last_recorded_at

    def restored(self, shuffle: random.Random) -> Session:
        """The session as a worker loads it: rows come in any order."""
        entries = [replace(entry) for entry in self.entries.values()]
        remembered = list(self.remembered.values())
        shuffle.shuffle(entries)
        shuffle.shuffle(remembered)
        return Session.restore(
            SESSION, self.counter, self.policy, entries, remembered, self.last_recorded_at, self.erased_at
        )


def check_restored_at_every_step(commands: list[Command], shuffle: random.Random, every: int = 1) -> None:
    session, stored = Session(SESSION), Stored()
    restored = session
    for index, command in enumerate(commands):
        if index % every == 0:
            restored = stored.restored(shuffle)
        decision, memory = apply(session, command)
        decision_restored, memory_restored = apply(restored, command)
        assert plain_decision(decision_restored) == plain_decision(decision)
        assert memory_restored == memory
        assert plain_state(restored) == plain_state(session)
        if isinstance(decision, Accepted) and memory is not None:
            stored.take(session, decision, memory)


@many_examples
@given(lives, st.randoms(use_true_random=False), st.integers(1, 9))
def test_a_session_restored_from_its_stored_parts_continues_as_before(
    commands: list[Command], shuffle: random.Random, every: int
) -> None:
    check_restored_at_every_step(commands, shuffle, every)


@settings(deadline=None, max_examples=15)
@given(long_lives, st.randoms(use_true_random=False))
def test_restoring_also_holds_while_commands_are_forgotten(
    commands: list[Command], shuffle: random.Random
) -> None:
    check_restored_at_every_step(commands, shuffle, every=37)


@settings(deadline=None, max_examples=15)
@given(long_lives)
def test_every_live_checkpoint_and_the_last_256_other_commands_are_remembered(
    commands: list[Command],
) -> None:
    session = Session(SESSION)
    accepted: dict[int, str] = {}
    for command in commands:
        decision, _ = apply(session, command)
        if isinstance(decision, Accepted):
            assert command.id is not None
            if isinstance(decision, Expired) and decision.forgets:
                accepted = {entry.position: accepted[entry.position] for entry in session.live()}
            if isinstance(decision, Erased):
                accepted = {}
            accepted[command.position] = command.id
        live = {entry.position for entry in session.live()}
        others = sorted(position for position in accepted if position not in live)
        for position in [*live, *others[-DEDUP_WINDOW:]]:
            assert session.knows(accepted[position])
        assert len(session.recent) <= FORGET_ABOVE


@many_examples
@given(lives)
def test_a_repeated_command_is_a_duplicate_about_the_same_checkpoint(commands: list[Command]) -> None:
    session = Session(SESSION)
    last = len(commands) * 3
    for command in commands:
        decision, _ = apply(session, command)
        if isinstance(decision, Accepted) and command.id is not None:
            again = command._replace(position=last, recorded_at=command.recorded_at + 99)
            about = getattr(decision, "number", None)
            if isinstance(decision, Created):
                about = decision.entry.number
            assert apply(session, again) == (Duplicate(about), None)
