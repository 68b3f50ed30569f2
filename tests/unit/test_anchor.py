"""The anchor ties a position to one log: a record that differs in anything at all gives another."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from waypost_worker.partition.anchor import anchor_of


class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


# Few values, so that two records often share some of them, and bytes that look like what parts are joined with.
PARTS = st.sampled_from([None, b"", b" ", b"-", b" -", b" 1:", b"a", b"a 1:a"])
RECORDS = st.builds(
    Record,
    st.integers(0, 2),
    st.integers(0, 2),
    PARTS,
    PARTS,
    st.lists(
        st.tuples(st.sampled_from(["a", "ab", ""]), PARTS.filter(lambda part: part is not None)), max_size=2
    ).map(tuple),
)


@given(RECORDS, RECORDS)
def test_two_records_have_one_anchor_only_if_they_are_equal(one: Record, other: Record) -> None:
    assert (anchor_of(one) == anchor_of(other)) == (one == other)


def test_equal_key_time_and_headers_with_another_value_is_another_record() -> None:
    record = Record(7, 1, b"session", b'{"name":"a"}', (("ce_id", b"1"),))
    assert anchor_of(record) != anchor_of(record._replace(value=b'{"name":"b"}'))
    assert anchor_of(record) == anchor_of(record._replace())
