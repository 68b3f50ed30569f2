"""A database that is rebuilt from results: what an erasure leaves of the results before it."""

from typing import NamedTuple

from waypost.model.partition_state import PartitionState
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition.batch import Batch, decode
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.recovery.replay.result_fold import Lost, ResultFold, retold_event

CREATE = b'{"name":"a","data":{"secret":1}}'
IMPORT = b'{"checkpoints":[{"id":"x","name":"n","timestamp":"2026-11-24T08:24:59Z","data":{}}]}'


class Command(NamedTuple):
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Result(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def retold(*commands: tuple[EventType, bytes]) -> tuple[Batch, ResultFold, Lost]:
    """The fold of these commands to session ``s``, and that of their results."""
    batch = Batch(ResultEncoder("r", 0), {}, PartitionState())
    for offset, (kind, body) in enumerate(commands):
        headers = command_headers(f"c{offset}", b"/t", kind.wire, b"1970-01-01T00:00:00Z")
        batch.add(decode(Command(offset, 1000 * offset, b"s", body, headers), 0, 1))
    lost = Lost()
    fold = ResultFold({}, PartitionState(), lost)
    for offset, (_, made) in enumerate(batch.finish({})[0]):
        fold.add(retold_event(0, Result(offset, made.key, made.value, list(made.headers))))
    return batch, fold, lost


def test_an_erasure_leaves_what_the_log_leaves() -> None:
    batch, fold, _ = retold(
        (EventType.CREATE, CREATE),
        (EventType.PIN, b'{"checkpoint_id":"s:1"}'),
        (EventType.CONFIGURE, b'{"max_checkpoints":7}'),
        (EventType.ERASE, b"{}"),
        (EventType.CREATE, CREATE),
        (EventType.ERASE, b"{}"),
    )
    (made, last), (told, told_last) = batch.changes.sessions["s"], fold.changes.sessions["s"]
    assert (told.erased_at, told.policy, told.recent, told.entries) == (3_000_000, None, made.recent, {})
    assert (made.erased_at, last) == (told.erased_at, told_last)
    assert fold.changes.puts == {}
    assert fold.changes.forgotten == batch.changes.forgotten == {"s": 5}


def test_what_an_import_made_is_not_missed_once_it_is_erased() -> None:
    _, fold, lost = retold((EventType.IMPORT, IMPORT), (EventType.ERASE, b"{}"))
    assert (lost.imported, lost.unknown) == ({}, 0)
    assert fold.changes.sessions["s"][0].erased_at == 1_000_000
