"""What runs under way can still need never leaves a thread, whoever cleans it up, whenever, and however late."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from waypost.adapters import _langgraph_cleanup as cleanup
from waypost.adapters._langgraph_cleanup import older_than_newest, plan
from waypost.adapters._langgraph_layout import CHECKPOINT, VALUES, WRITES
from waypost.adapters._langgraph_threads import KnownValues, name_metadata, session_of_thread, thread_of
from waypost.adapters.records import Row
from waypost.errors import InvalidCommandError

START = datetime(2026, 11, 24, tzinfo=UTC)


class Run:
    """A run of a graph in a process of its own: what it has at hand, and what its saver knows."""

    def __init__(self) -> None:
        self.known = KnownValues(cleanup.RELY_SECONDS)
        self.versions: dict[str, str] = {}
        self.parent: str | None = None


class Thread(RuleBasedStateMachine):
    """Runs and clean-ups of one thread in any order, on one clock, as long as each takes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.number = self.version = 0
        self.now = 0.0
        self.runs: list[Run] = []
        self.begun: tuple[cleanup.CleanupPlan, float] | None = None

    def append(self, name: str, metadata: dict[str, Any]) -> None:
        self.number += 1
        self.rows.append(Row(self.number, name, b"", metadata, START + timedelta(seconds=self.now)))

    @rule(seconds=st.sampled_from([0.1, 30, 200, 300, 700]))
    def wait(self, seconds: float) -> None:
        if self.begun is not None:  # a clean-up ends or is given up in time
            seconds = min(seconds, self.begun[1] + cleanup.SWEEP_SECONDS - self.now)
        self.now += seconds

    @rule()
    def start(self) -> None:
        """Read the newest checkpoint, as a run does that begins."""
        run = Run()
        checkpoints = [row for row in self.rows if row.name == CHECKPOINT]
        if checkpoints:
            run.versions = dict(checkpoints[-1].metadata["versions"])
            run.parent = checkpoints[-1].metadata["id"]
            run.known.note("t", checkpoints[-1].metadata["needs"], self.now)
        self.runs.append(run)

    @rule(data=st.data(), changed=st.sets(st.sampled_from("abc"), min_size=1), apart=st.booleans())
    def step(self, data: st.DataObject, changed: set[str], apart: bool) -> None:
        """Put the next checkpoint of a run, which began any time ago."""
        if not self.runs:
            return
        run = data.draw(st.sampled_from(self.runs))
        for channel in sorted(changed):
            self.version += 1
            run.versions[channel] = f"{channel}{self.version}"
        trusted = run.known.trusted("t", self.now)
        holds = [each for channel, each in run.versions.items() if channel in changed or each not in trusted]
        if apart:
            self.append(VALUES, {"holds": holds})
        needs = sorted(run.versions.values())
        name = f"id-{self.number}"
        metadata = {"ns": "", "id": name, "needs": needs, "exact": True, "versions": dict(run.versions)}
        self.append(CHECKPOINT, metadata | {"holds": [] if apart else holds, "parent": run.parent})
        self.append(WRITES, {"ns": "", "id": name})
        run.known.note("t", needs, self.now)
        run.parent = name

    @rule(keep=st.integers(1, 3), at_once=st.booleans())
    def begin_to_clean_up(self, keep: int, at_once: bool) -> None:
        if self.begun is None and self.rows:
            self.append(cleanup.SWEEP, {})
            rows = list(self.rows)
            self.begun = plan(rows, older_than_newest(rows, keep, at_once=at_once)), self.now

    @rule()
    def end_clean_up(self) -> None:
        if self.begun is None:
            return
        planned, _ = self.begun
        self.begun = None
        for record in planned.leases:
            self.append(record.name, record.metadata)
        if planned.carry:
            self.append(VALUES, {"holds": sorted(planned.carry)})
        gone = set(planned.gone)
        self.rows = [row for row in self.rows if row.number not in gone]

    @invariant()
    def every_checkpoint_has_its_values(self) -> None:
        held = {digest for row in self.rows for digest in row.metadata.get("holds", ())}
        for row in self.rows:
            if row.name == CHECKPOINT:
                assert set(row.metadata["needs"]) <= held, row


class TestThread(Thread.TestCase):
    """Of all orders, 150 at each run."""

    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def row(number: int, name: str, metadata: dict[str, Any], seconds: float = 0) -> Row:
    return Row(number, name, b"", metadata, START + timedelta(seconds=seconds))


def put(number: int, ns: str, name: str, seconds: float = 0, **more: Any) -> Row:
    metadata = {"ns": ns, "id": name, "needs": [], "holds": [], "exact": True}
    return row(number, CHECKPOINT, metadata | more, seconds)


def test_the_namespace_of_a_call_leaves_with_its_checkpoint() -> None:
    rows = [
        put(1, "", "root-1"),
        put(2, "ask:1", "a", above={"": "root-1"}),
        put(3, "ask:1|deep:1", "b", above={"": "root-1", "ask:1": "a"}),
        put(4, "", "root-2", parent="root-1"),
        put(5, "ask:2", "c", above={"": "root-2"}),
        put(6, "memory", "d", above={"": "root-1"}),  # lasts from call to call
    ]
    for at_once in (True, False):
        later = [*rows, row(7, cleanup.SWEEP, {}, 3600)]
        assert older_than_newest(later, 1, at_once=at_once) == {
            ("", "root-1"),
            ("ask:1", "a"),
            ("ask:1|deep:1", "b"),
        }
    assert older_than_newest(rows, 1, at_once=False) == set()


def test_a_call_whose_checkpoint_is_still_to_come_stays_for_a_while() -> None:
    # With durability="exit" a subgraph may be stored before the graph that called it.
    rows = [put(1, "", "root-1"), put(2, "ask:1", "a", 10, above={"": "root-2"})]
    assert older_than_newest([*rows, row(3, WRITES, {"ns": "", "id": "x"}, 20)], 1, at_once=True) == set()
    later = [*rows, row(3, WRITES, {"ns": "", "id": "x"}, 3600)]
    assert older_than_newest(later, 1, at_once=True) == {("ask:1", "a")}


def test_calls_of_version_0_1_leave_when_all_that_is_newer_than_them_stays() -> None:
    old = {"ns": "ask:1", "id": "a", "needs": [], "holds": []}
    rows = [
        put(1, "", "root-1"),
        row(2, CHECKPOINT, old),
        put(3, "", "root-2"),
        row(4, CHECKPOINT, {**old, "ns": "ask:2"}),
    ]
    later = [*rows, row(5, cleanup.SWEEP, {}, 3600)]
    assert older_than_newest(later, 1, at_once=True) == {("", "root-1"), ("ask:1", "a")}


def test_what_a_delta_channel_of_a_run_under_way_is_built_from_stays() -> None:
    rows = [
        put(1, "", "stored"),
        put(2, "", "slow", parent="stored", deltas=["log"]),
        put(3, "", "other", parent="stored"),
        put(4, "", "newest", parent="other"),
    ]
    assert older_than_newest(rows, 1, at_once=True) == {("", "other")}
    later = [*rows, row(5, cleanup.SWEEP, {}, 3600)]
    assert older_than_newest(later, 1, at_once=True) == {("", "other"), ("", "slow"), ("", "stored")}


def test_of_two_clean_ups_the_first_continues_unless_it_was_interrupted() -> None:
    both = [row(1, cleanup.SWEEP, {}), row(2, cleanup.SWEEP, {}, 60)]
    assert (cleanup.is_swept(both, 1), cleanup.is_swept(both, 2)) == (False, True)
    assert not cleanup.is_swept([both[0], row(2, cleanup.SWEEP, {}, 181)], 2)


@pytest.mark.parametrize(
    "name", ["t", "line\nbreak", "nul\0", "\ud83d", "\ud7ff", "x" * 4_000, "ü" * 2_000, "sha256:"]
)
def test_a_threads_id_is_read_back(name: str) -> None:
    session_id = session_of_thread(name)
    metadata = name_metadata(session_id, name)
    assert thread_of(session_id, metadata) == name
    assert all(each.isascii() or "\0" not in each for each in metadata.values())


def test_a_threads_id_that_is_too_long_is_an_error() -> None:
    with pytest.raises(InvalidCommandError, match="thread_id has 4002 bytes, at most 4000"):
        session_of_thread("ü" * 2_001)


def test_what_a_saver_knows_is_bounded() -> None:
    known = KnownValues(10)
    for number in range(3_000):
        known.note(f"t{number}", ["a"], 0)
    assert not known.trusted("t0", 0)
    assert known.trusted("t2999", 9) == {"a"}
    assert not known.trusted("t2999", 10)
    for number in range(100):
        known.note("t", [f"{number}/{each}" for each in range(100)], number)
    assert len(known._threads["t"]) <= 3_000
