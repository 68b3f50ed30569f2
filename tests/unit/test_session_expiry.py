"""Expiry: a session that was idle loses its checkpoints, by the broker's clock, and an active one loses nothing."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.life import Life, duplicate_of, expect

from waypost.errors import InvalidCommandError, NaiveDatetimeError
from waypost.manager import CheckpointManager
from waypost.model.commands import Create, Expire, Pin, Rollback
from waypost.model.decisions import Expired, Rejected, SessionKept
from waypost.model.index import FORGET_ABOVE
from waypost.model.partition_state import PartitionState
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition.batch import Batch, decode
from waypost_worker.partition.encode import ResultEncoder

A = Create("a", b"{}")
SECOND = 1_000_000


def expired(life: Life, since: int, at: float = 100, pinned: bool = False) -> tuple[int, ...]:
    return expect(Expired, life.does(Expire(since * SECOND, pinned), at)).removed


def kept(life: Life, since: int, at: float = 100) -> int | None:
    before = life.everything()
    decision = expect(SessionKept, life.does(Expire(since * SECOND), at))
    assert life.everything() == before
    return decision.last_recorded_at


class TestIdle:
    def test_a_session_expires_if_its_last_command_is_older(self) -> None:
        life = Life()
        life.creates("a", "b", at=10)
        assert expired(life, since=11) == (1, 2)
        assert life.numbers == []

    @pytest.mark.parametrize("since", [10, 9, 0])
    def test_a_session_with_a_command_at_that_time_or_later_is_kept(self, since: int) -> None:
        life = Life()
        life.creates("a", at=10)
        assert kept(life, since) == 10 * SECOND

    def test_a_session_without_commands_is_kept(self) -> None:
        assert kept(Life(), since=50) is None

    def test_any_accepted_command_counts_as_activity(self) -> None:
        life = Life()
        life.creates("a", at=10)
        life.does(Pin("s:1"), at=20)
        assert kept(life, since=15) == 20 * SECOND

    def test_a_rejected_command_a_duplicate_and_an_expiry_without_effect_do_not(self) -> None:
        life = Life()
        life.does(A, at=10, id="again")
        expect(Rejected, life.does(Pin("s:9"), at=20))
        assert duplicate_of(life.does(A, at=30, id="again")) == 1
        kept(life, since=5, at=40)
        assert expired(life, since=11) == (1,)

    def test_the_decision_says_since_when_it_was_idle_and_what_its_last_command_was(self) -> None:
        life = Life()
        life.creates("a", at=10)
        assert life.does(Expire(9 * SECOND), at=100) == SessionKept(9 * SECOND, 10 * SECOND)
        assert life.does(Expire(11 * SECOND), at=100) == Expired(11 * SECOND, 10 * SECOND, (1,))

    def test_two_expiries_in_parallel_have_one_effect(self) -> None:
        life = Life()
        life.creates("a", at=10)
        assert expired(life, since=50, at=100) == (1,)
        assert kept(life, since=50, at=101) == 100 * SECOND

    def test_a_time_in_the_future_of_the_broker_is_rejected(self) -> None:
        life = Life()
        life.creates("a", at=10)
        decision = expect(Rejected, life.does(Expire(101 * SECOND), at=100))
        assert decision.code == "invalid-body"
        assert decision.message == (
            "idle_since: 1970-01-01T00:01:41.000000Z is later than 1970-01-01T00:01:40.000000Z, when Kafka recorded "
            "the command: a session can't be idle since then"
        )
        assert expired(life, since=100) == (1,)


class TestWhatLeaves:
    def test_pinned_checkpoints_stay(self) -> None:
        life = Life()
        life.creates("a", "b", "c", at=10)
        life.pins(2)
        assert expired(life, since=11) == (1, 3)
        assert life.names == "b*"

    def test_pinned_checkpoints_are_removed_if_the_command_includes_them(self) -> None:
        life = Life()
        life.creates("a", "b", at=10)
        life.pins(2)
        assert expired(life, since=11, pinned=True) == (1, 2)

    def test_the_policy_and_the_counter_stay(self) -> None:
        life = Life()
        life.configures(at=10, max_checkpoints=7)
        life.creates("a", "b", at=10)
        expired(life, since=11)
        assert life.session.policy is not None
        assert life.session.policy.max_checkpoints == 7
        life.creates("c", at=101)
        assert life.numbers == [3]


class TestCommandIds:
    def test_a_repeated_command_is_still_known_after_the_checkpoints_left(self) -> None:
        life = Life()
        life.does(A, at=10, id="one")
        expired(life, since=11)
        assert duplicate_of(life.does(A, at=101, id="one")) == 1

    def test_the_next_expiry_forgets_the_ids(self) -> None:
        life = Life()
        for index in range(300):
            life.does(Rollback("s:1") if index else A, at=10, id=f"id-{index}")
        assert expired(life, since=11, at=100) == (1,)
        assert expired(life, since=101, at=200) == ()
        assert [one.command_id for one in life.session.recent] == [f"command-{life.position}"]
        assert not life.session.knows("id-0")

    def test_the_ids_of_pinned_checkpoints_are_never_forgotten(self) -> None:
        life = Life()
        life.does(A, at=10, id="pinned")
        life.pins(1)
        assert expired(life, since=11, at=100) == ()
        assert duplicate_of(life.does(A, at=101, id="pinned")) == 1

    def test_an_expiry_itself_is_remembered(self) -> None:
        life = Life()
        life.creates("a", at=10)
        life.does(Expire(11 * SECOND), at=100, id="again")
        assert duplicate_of(life.does(Expire(11 * SECOND), at=100, id="again")) is None


class Record:
    key = b"s"

    def __init__(self, offset: int, kind: str, body: bytes, command_id: str = "") -> None:
        self.offset = offset
        self.timestamp = offset * 1000
        self.value = body
        headers = command_headers(command_id or f"c{offset}", b"/t", kind.encode(), b"1970-01-01T00:00:00Z")
        self.headers = headers


def test_what_an_expiry_forgot_stays_forgotten_if_the_same_batch_forgets_older_ids_later() -> None:
    # Ids of pinned checkpoints that are dropped after the expiry are older than all that the expiry forgot.
    create = b'{"name":"a","data":{}}'
    records = [Record(0, EventType.CONFIGURE, b'{"max_checkpoints":10000,"compress_after":10000}')]
    for number in range(1, FORGET_ABOVE + 2):
        records.append(Record(len(records), EventType.CREATE, create))
        records.append(Record(len(records), EventType.PIN, b'{"checkpoint_id":"s:%d"}' % number))
    idle = b'{"idle_since":"1970-01-01T01:00:00Z"}'
    at = 2 * 3600
    batch = Batch(ResultEncoder("r", 0), {}, PartitionState())
    for record in [*records, Record(at, EventType.EXPIRE, idle), Record(at + 1, EventType.CLEAR, b"{}")]:
        batch.add(decode(record, 0, 1))
    made, _ = batch.finish({})
    assert made[-2][1].headers[3][1] == EventType.EXPIRED.wire
    assert batch.changes.forgotten == {"s": at}


def test_the_manager_expires_like_the_service() -> None:
    manager = CheckpointManager("s")
    assert manager.expire(datetime.now(UTC)) == 0
    manager.create("a", {})
    manager.pin(manager.create("b", {}).id)
    assert manager.expire(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert manager.expire(datetime.now(UTC)) == 1
    assert [one.name for one in manager] == ["b"]
    assert manager.expire(datetime.now(UTC), pinned=True) == 1
    assert manager.get_all() == []
    with pytest.raises(InvalidCommandError, match="idle_since"):
        manager.expire(datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(NaiveDatetimeError):
        manager.expire(datetime(2026, 11, 30))
