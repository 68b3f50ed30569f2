"""Whatever a publisher with a spool does, and at whatever byte of a write its process dies: nothing accepted is lost,
what Kafka acknowledged is repeated only as far as a worker remembers, and each session keeps its order.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.pending import pending
from tests.unit.spools import TOPIC

from waypost.errors import BufferFullError
from waypost.publisher.buffer import Buffer
from waypost.publisher.pending import Pending
from waypost.publisher.spool.directory import SpoolClaim, _let_go, claim
from waypost.publisher.spool.log import Log
from waypost.publisher.spool.spooler import Spooler

ALL = 10**9
BATCH = 4
SESSIONS = st.integers(0, 2).map("session-{}".format)


class Publishers(RuleBasedStateMachine):
    """One publisher after another on one directory, each until it dies or ends. The spool's thread is a rule."""

    @initialize(
        memory=st.integers(1, 20),
        most=st.sampled_from([2500, ALL]),
        drop=st.booleans(),
        partitions=st.integers(1, 3),
        segment=st.sampled_from([700, 7000]),
        past=st.lists(SESSIONS, max_size=12),
        sent=st.lists(st.integers(1, BATCH), max_size=4),
    )
    def begin(
        self,
        memory: int,
        most: int,
        drop: bool,
        partitions: int,
        segment: int,
        past: list[str],
        sent: list[int],
    ) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.generation = 0
        self.directory = self.root / "0"
        self.memory, self.most, self.drop, self.partitions = memory, most, drop, partitions
        self.segment = segment  # bytes; files of a few commands are full and emptied all the time
        self.accepted: dict[str, list[str]] = defaultdict(list)
        self.kafka: dict[str, list[str]] = defaultdict(list)
        self.dropped: set[str] = set()
        self.unsure: set[str] = set()  # of calls that were under way at a death
        self.sources: dict[str, bytes] = {}
        self.number = 0
        self.open()
        if past:
            self.put(past, 10, False)
            for most in sent:
                self.send(0, most, True, False)
            self.reopen()

    def open(self) -> None:
        self.source = b"/%d" % self.generation
        self.claim: SpoolClaim = claim(self.directory, TOPIC, self.source, segment_bytes=self.segment)
        assert all(left.damaged == 0 for left in self.claim.left)
        self.spooler = Spooler(self.claim, self.most, fsync=False)
        self.buffer = Buffer(
            self.memory,
            ALL,
            "drop_oldest" if self.drop else "raise",
            lambda: None,
            lambda each: self.dropped.add(each.command_id),
            self.spooler,
        )
        self.spooler._buffer = self.buffer
        self.buffer.set_partition_count(self.partitions)
        self.flying = [0] * self.partitions
        self.age = 0  # a publisher does something before it ends

    def make(self, session: str, count: int, size: int) -> list[Pending]:
        made = []
        for _ in range(count):
            self.number += 1
            self.sources[f"{self.number}"] = self.source
            made.append(pending(f"{self.number}", session, b"d" * size))
        return made

    @rule(sessions=st.lists(SESSIONS, min_size=1, max_size=8), size=st.integers(0, 300), served=st.booleans())
    def put(self, sessions: list[str], size: int, served: bool) -> None:
        self.age += 1
        for session in sessions:
            self.put_together(session, 1, size)
        if served:
            self.spooler._serve()

    @rule(session=SESSIONS, count=st.integers(2, 4), size=st.integers(0, 300))
    def put_together(self, session: str, count: int, size: int) -> None:
        made = self.make(session, count, size)
        try:
            self.buffer.put(*made)
        except BufferFullError:
            return
        self.accepted[session] += [each.command_id for each in made]

    @rule()
    def serve(self) -> None:
        """What the thread does."""
        self.spooler._serve()

    @rule(batches=st.integers(1, 8))
    def go_well(self, batches: int) -> None:
        """Kafka and the disk are up for a while."""
        for number in range(batches):
            self.spooler._serve()
            self.send(number, BATCH, True, True)

    @rule(
        partition=st.integers(0, 2),
        most=st.integers(1, BATCH),
        landed=st.sampled_from([None, True, True, False]),
        served=st.booleans(),
    )
    def send(self, partition: int, most: int, landed: bool | None, served: bool) -> None:
        """A batch flies; ``landed`` if Kafka has acknowledged it, False if the producer died and nobody knows."""
        partition %= self.partitions
        self.age += 1
        if served:
            self.spooler._serve()
        self.buffer.route(2 * most)
        if not self.flying[partition]:
            self.flying[partition] = len(self.buffer.take(partition, most, ALL, {}))
        if landed is None or not self.flying[partition]:
            return
        flying = self.flying[partition]
        batch = list(self.buffer._in_flight[partition])[:flying]
        for each in batch:
            assert each.command_id not in self.dropped
            self.kafka[str(each.session_id)].append(each.command_id)
        if not landed:
            self.buffer.give_all_back()
            self.flying = [0] * self.partitions
            return
        gone = self.buffer.acknowledge(partition, flying)
        assert gone == batch
        assert not self.buffer.settle(partition, gone, lambda: None)
        self.flying[partition] = 0

    @rule(partitions=st.integers(1, 3))
    def grow(self, partitions: int) -> None:
        if partitions != self.partitions:
            self.buffer.give_all_back()
            self.partitions = partitions
            self.buffer.set_partition_count(partitions)
            self.flying = [0] * partitions

    @precondition(lambda self: self.age > 5)
    @rule(data=st.data(), session=SESSIONS, count=st.sampled_from([0, 1, 3]), size=st.integers(0, 300))
    def die(self, data: st.DataObject, session: str, count: int, size: int) -> None:
        """The process ends at any byte of a call's write, or between calls."""
        own = self.claim.own
        if count:
            made = self.make(session, count, size)
            written = own.encode(made)
            before = own.segments[-1].size
            cut = data.draw(st.integers(0, len(written)), "bytes written")
            own.segments[-1].write(written[:cut])
            own.segments[-1].size = before
            if cut == len(written):
                # It may be accepted or not: the call has not returned.
                self.unsure.update(each.command_id for each in made)
                self.accepted[session] += [each.command_id for each in made]
        self.reopen()

    @precondition(lambda self: self.age > 5)
    @rule()
    def end(self) -> None:
        self.spooler._end()
        self.reopen()

    def reopen(self) -> None:
        """What the system does when a process is gone: files are closed, and so are locks."""
        self.generation += 1
        following = self.root / f"{self.generation}"
        shutil.copytree(self.directory, following)
        following.chmod(0o700)
        for spool in list(self.claim.locks):
            spool.close()
        _let_go()
        shutil.rmtree(self.directory)
        self.directory = following
        self.open()

    @precondition(lambda self: hasattr(self, "buffer"))
    @invariant()
    def the_books_balance(self) -> None:
        assert self.spooler.damaged == 0
        held = self.buffer.left()
        for each in held:
            assert (each.source or self.source) == self.sources[each.command_id]
        assert len(self.buffer) == len(held) + self.buffer._beyond
        assert self.spooler.bytes == sum(spool.live_bytes for spool in self.every_log())
        assert len(self.buffer) == sum(spool.live for spool in self.every_log())
        assert self.buffer._beyond == sum(
            segment.unread for spool in self.every_log() for segment in spool.segments
        )
        assert self.spooler.bytes <= self.most + 1200  # one call that was under way at a death
        assert self.buffer.count_left(self.buffer.newest) == len(self.buffer)
        assert self.buffer.holds(self.buffer.newest) == bool(len(self.buffer))

    def every_log(self) -> Iterator[Log]:
        yield from self.claim.left
        yield self.claim.own

    def teardown(self) -> None:
        if not hasattr(self, "buffer"):
            return
        try:
            self.drain()
        finally:
            _let_go()
            shutil.rmtree(self.root)

    def drain(self) -> None:
        self.reopen()  # once more: what counts is what the disk has
        while len(self.buffer):
            self.spooler._serve()
            self.buffer.route(1000)
            for partition in range(self.partitions):
                self.send(partition, BATCH, True, False)
        self.spooler._end()
        assert {path.name for path in self.directory.iterdir()} == {"directory.lock"}
        for session, accepted in self.accepted.items():
            arrived = list(dict.fromkeys(self.kafka[session]))
            missing = set(accepted) - set(arrived) - self.dropped
            assert missing <= self.unsure, f"lost: {sorted(missing)}"
            assert arrived == [each for each in accepted if each in set(arrived)], "out of order"
            self.repetitions_are_near(self.kafka[session])
        assert not {each for ids in self.kafka.values() for each in ids} - {
            each for ids in self.accepted.values() for each in ids
        }

    def repetitions_are_near(self, sent: list[str]) -> None:
        """At most one batch is sent again, so fewer others lie between a command and its repetition."""
        places: dict[str, int] = {}
        for each in sent:
            if each in places:
                assert len(places) - places[each] - 1 < BATCH
            else:
                places[each] = len(places)


class TestPublishers(Publishers.TestCase):  # type: ignore[misc,valid-type]
    """What pytest runs."""

    settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
