"""Erasure: a session loses everything for good, and what comes later finds a tombstone and leaves nothing there."""

from typing import Any

import orjson
import pytest
from tests.unit.life import Life, duplicate_of, expect

from waypost.errors import InvalidCommandError
from waypost.manager import CheckpointManager
from waypost.model.commands import (
    Clear,
    Configure,
    Create,
    Delete,
    Erase,
    Expire,
    Import,
    ImportItem,
    Pin,
    Rollback,
    Unpin,
)
from waypost.model.decisions import Erased, Rejected
from waypost.model.index import Session
from waypost.model.partition_state import PartitionState
from waypost.wire.envelope import KafkaRecord, command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.partition.batch import Batch, decode
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import RejectedRow

A = Create("a", b"{}")
SECOND = 1_000_000
LATER = (
    A,
    Pin("s:1"),
    Unpin("s:1"),
    Delete("s:1"),
    Clear(),
    Rollback("s:1"),
    Import((ImportItem("s:1", "n", 0, b"{}"),)),
    Configure((("max_checkpoints", 9),)),
    Expire(0),
)


class TestWhatLeaves:
    def test_everything_but_the_counter_and_the_times(self) -> None:
        life = Life()
        life.configures(at=10, max_checkpoints=7)
        life.creates("a", "b", "c", at=10)
        life.pins(2)
        life.does(Delete("s:3"), at=11)
        assert expect(Erased, life.does(Erase(), at=20)) == Erased(20 * SECOND, (1, 2))
        session = life.session
        assert (life.numbers, session.entries, session.pins(), session.policy) == ([], {}, 0, None)
        assert [one.command_id for one in session.recent] == [f"command-{life.position}"]
        assert (session.counter, session.erased_at, session.last_recorded_at) == (3, 20 * SECOND, 20 * SECOND)

    def test_of_an_import_too(self) -> None:
        life = Life()
        life.imports(ImportItem("other:1", "n", 0, b"{}"))
        life.does(Erase(), at=20)
        assert life.session.find("other:1") is None

    def test_a_session_that_never_was_gets_a_tombstone(self) -> None:
        life = Life()
        assert expect(Erased, life.does(Erase(), at=20)).removed == ()
        assert life.refuses(A) == "erased"


class TestLaterCommands:
    @pytest.mark.parametrize("action", LATER, ids=lambda action: type(action).__name__)
    def test_are_rejected(self, action: Any) -> None:
        life = Life()
        life.creates("a")
        life.does(Erase(), at=20)
        assert life.refuses(action) == "erased"

    def test_a_repeated_create_is_rejected_like_any_other(self) -> None:
        life = Life()
        life.does(A, id="one")
        life.does(Erase(), at=20)
        assert expect(Rejected, life.does(A, id="one")).code == "erased"

    def test_the_rejection_says_when_and_quotes_nothing(self) -> None:
        life = Life()
        life.does(Erase(), at=20)
        message = expect(Rejected, life.does(Create("secret", b'{"secret":1}'))).message
        assert message == (
            "session 's' was erased at 1970-01-01T00:00:20.000000Z and takes no more commands; the content of this one "
            "was not kept: use another session id"
        )


class TestOnceMore:
    def test_a_second_erasure_keeps_the_time_of_the_first(self) -> None:
        life = Life()
        life.creates("a")
        life.does(Erase(), at=20)
        assert expect(Erased, life.does(Erase(), at=30)) == Erased(20 * SECOND)
        assert life.session.erased_at == 20 * SECOND

    def test_a_repeated_one_is_a_duplicate(self) -> None:
        life = Life()
        life.does(Erase(), at=20, id="erase")
        assert duplicate_of(life.does(Erase(), at=30, id="erase")) is None

    def test_only_the_last_one_is_remembered(self) -> None:
        life = Life()
        for number in range(3):
            life.does(Erase(), at=20, id=f"erase-{number}")
        assert [one.command_id for one in life.session.recent] == ["erase-2"]


def record(
    offset: int, kind: str, body: bytes, *, session: str = "s", partitions: int = 1, command_id: str = ""
) -> KafkaRecord:
    """A record of partition 0."""

    class Record:
        timestamp = offset * 1000
        key = session.encode()
        value = body
        headers = command_headers(
            command_id or f"c{offset}", b"/t", kind.encode(), b"1970-01-01T00:00:00Z", b"trace"
        )

    Record.offset = offset  # type: ignore[attr-defined]
    return Record()  # type: ignore[return-value]


def folded(*records: KafkaRecord, partitions: int = 1, sessions: dict[str, Session] | None = None) -> Batch:
    batch = Batch(ResultEncoder("r", 0), {} if sessions is None else sessions, PartitionState())
    for one in records:
        batch.add(decode(one, 0, partitions))
    return batch


CREATE = b'{"name":"a","data":{"secret":1}}'


class TestRejections:
    def rows(self, batch: Batch) -> list[tuple[int, str, bytes | None]]:
        return [(row.offset, row.code, row.value) for row in batch.changes.rejected]

    def stored(self, batch: Batch) -> list[RejectedRow]:
        return batch.changes.kept_rejections()

    def test_what_comes_later_is_noted_without_content(self) -> None:
        batch = folded(record(0, EventType.ERASE, b"{}"), record(1, EventType.CREATE, CREATE))
        (row,) = self.stored(batch)
        assert (row.code, row.value, row.headers, row.key) == ("erased", b"", (), b"s")
        assert (row.value_bytes, row.command_id) == (len(CREATE), "c1")
        assert row.headers_bytes is not None
        assert row.headers_bytes > 50
        assert b"secret" not in repr(row).encode()

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            (EventType.CREATE, b'{"name":"a","data":{"secret":1}'),
            (EventType.CREATE, b'{"name":"a","data":{},"secret":1}'),
            (EventType.ERASE, b'{"secret":1}'),
            ("waypost.checkpoint.explode", b'{"secret":1}'),
        ],
    )
    def test_also_of_what_could_not_be_read(self, kind: str, body: bytes) -> None:
        batch = folded(record(0, EventType.ERASE, b"{}"), record(1, kind, body))
        assert self.rows(batch) == [(1, "erased", b"")]
        made, _ = batch.finish({})
        assert orjson.loads(made[1][1].value)["code"] == "erased"
        assert b"secret" not in made[1][1].value

    def test_earlier_ones_of_the_session_go_and_others_stay(self) -> None:
        batch = folded(
            record(0, EventType.CREATE, b'{"secret":1}'),
            record(1, EventType.CREATE, b'{"secret":1}', session="t"),
            record(2, EventType.ERASE, b"{}"),
            record(3, EventType.CREATE, CREATE),
        )
        assert [row.offset for row in batch.changes.rejected] == [0, 1, 3]  # all of them count
        assert [row.offset for row in self.stored(batch)] == [1, 3]
        assert batch.changes.erased == {"s": 2}

    def test_a_later_erasure_takes_those_in_between(self) -> None:
        batch = folded(
            record(0, EventType.ERASE, b"{}"),
            record(1, EventType.CREATE, CREATE),
            record(2, EventType.ERASE, b"{}", command_id="again"),
        )
        assert self.stored(batch) == []
        assert batch.changes.erased == {"s": 2}

    def test_a_session_of_another_partition_is_not_looked_at(self) -> None:
        names = [f"s{number}" for number in range(20)]
        elsewhere = next(name for name in names if partition_of(name, 2) == 1)
        decoded = decode(record(0, EventType.CREATE, CREATE, session=elsewhere), 0, 2)
        assert (decoded.rejection is not None, decoded.session_id) == (True, None)


class TestWhatIsStored:
    def test_rows_and_ids_of_the_batch_itself_are_not(self) -> None:
        batch = folded(
            record(0, EventType.CREATE, CREATE),
            record(1, EventType.PIN, b'{"checkpoint_id":"s:1"}'),
            record(2, EventType.ERASE, b"{}"),
        )
        changes = batch.changes
        assert (changes.puts, changes.drops, changes.pins) == ({}, {}, {})
        assert changes.forgotten == {"s": 2}
        session, last = changes.sessions["s"]
        assert (session.erased_at, last) == (2 * SECOND, 2 * SECOND)

    def test_the_result_names_what_left(self) -> None:
        made, _ = folded(record(0, EventType.CREATE, CREATE), record(1, EventType.ERASE, b"{}")).finish({})
        body = orjson.loads(made[1][1].value)
        assert body == {
            "session_id": "s",
            "erased_at": "1970-01-01T00:00:01.000000Z",
            "count": 1,
            "removed": ["s:1"],
            "command": {"id": "c1", "partition": 0, "offset": 1},
        }
        assert dict(made[1][1].headers)["ce_type"] == EventType.ERASED.wire


def test_the_manager_erases_like_the_service() -> None:
    manager = CheckpointManager("s")
    manager.pin(manager.create("a", {}).id)
    manager.create("b", {})
    assert manager.erase() == 2
    assert (manager.get_all(), manager.export()) == ([], "[]")
    assert manager.erase() == 0
    with pytest.raises(InvalidCommandError, match="was erased") as caught:
        manager.create("c", {})
    assert caught.value.code == "erased"
