"""A fetch's records come out decoded in batches that are bounded by bytes, whatever the pieces they are decoded in."""

from dataclasses import dataclass, field
from itertools import zip_longest

from hypothesis import given
from hypothesis import strategies as st

from waypost.model.commands import Rollback
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition.batch import Decoded, decode
from waypost_worker.partition.batching import BatchSplitter

_ROLLBACK = b'{"checkpoint_id": "session:1"}'


@dataclass
class Record:
    offset: int
    value: bytes | None
    kind: str
    key: bytes | None = b"session"
    timestamp: int = 1_800_000_000_000
    headers: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.headers = command_headers(f"c{self.offset}", b"/t", self.kind.encode(), b"2026-11-24T08:24:59Z")


def weight(one: Decoded) -> int:
    largest_answer = 1024 * 1024 if isinstance(one.action, Rollback) else 0
    return len(one.record.value or b"") + 200 + largest_answer


values = st.one_of(
    st.none(),
    st.just(_ROLLBACK),
    st.integers(0, 3_000).map(lambda size: b'{"name":"n","data":{}}' + b" " * size),
)


@given(st.lists(values, max_size=300), st.sampled_from([1, 300, 5_000, 60_000, 1_200_000, 4_000_000]))
def test_batches_hold_all_records_once_in_order_and_as_many_as_fit(
    made: list[bytes | None], most_bytes: int
) -> None:
    records = [
        Record(offset, value, EventType.ROLLBACK if value == _ROLLBACK else EventType.CREATE)
        for offset, value in enumerate(made)
    ]
    pieces = BatchSplitter(records, 0, 1, most_bytes)
    batches: list[list[Decoded]] = []
    while pieces:
        taken = list(pieces.batch())
        assert all(taken), "a piece without records"
        batches.append([one for piece in taken for one in piece])
    assert [one for batch in batches for one in batch] == [decode(record, 0, 1) for record in records]
    for batch, following in zip_longest(batches, batches[1:], fillvalue=[]):
        total = sum(map(weight, batch))
        assert total <= most_bytes or len(batch) == 1
        if following:
            assert total + weight(following[0]) > most_bytes, "one more would have fitted"
