"""The parts of a record are bounded before they are looked at, and nothing unbounded is kept or answered."""

import time
import tracemalloc
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.commands import structured_event
from tests.unit.test_traceparent import GOOD

from waypost.errors import InvalidCommandError
from waypost.model.limits import MAX_COMMAND_BYTES, MAX_HEADERS, MAX_HEADERS_BYTES
from waypost.model.partition_state import PartitionState
from waypost.wire.envelope import command_headers, glimpse, open_envelope
from waypost_worker.partition.batch import Batch, decode
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.kept import (
    MAX_KEPT_VALUE,
    PART_BYTES,
    PART_ROWS,
    PARTS,
    headers_json,
    kept,
    kept_size,
    make_room,
)
from waypost_worker.partition.ports import RejectedRow, RejectedWindow, ResultRecord

MB = 1024 * 1024
CREATE = b"waypost.checkpoint.create"
BODY = b'{"name":"n","data":{"a":1}}'
STRUCTURED = ("content-type", b"application/cloudevents+json")


@dataclass
class Record:
    key: bytes | None = b"s"
    value: bytes | None = BODY
    headers: list[tuple[str, bytes]] = field(default_factory=lambda: headers())
    offset: int = 7
    timestamp: int = 1_795_508_699_123


def headers(traceparent: bytes | None = None, **changed: bytes) -> list[tuple[str, bytes]]:
    made = dict(command_headers("c-1", b"/agent", CREATE, b"2026-11-24T08:24:59Z", traceparent))
    return list((made | changed).items())


def event(**more: Any) -> bytes:
    attributes = {"id": "c-1", "source": "/agent", "type": CREATE.decode()}
    return orjson.dumps(orjson.loads(structured_event(attributes, 0, BODY)) | more)


def refused(record: Record) -> tuple[str, str]:
    with pytest.raises(InvalidCommandError) as caught:
        open_envelope(record)
    return caught.value.code, caught.value.message


def answered(record: Record) -> tuple[ResultRecord, RejectedRow | None]:
    """The result of a command, and what is kept of it if it is rejected."""
    batch = Batch(ResultEncoder("results", 0), {}, PartitionState())
    batch.add(decode(record, 0, 1))
    ((_, result),), _ = batch.finish({})
    return result, batch.changes.rejected[0] if batch.changes.rejected else None


class TestEachPart:
    def test_a_key_has_at_most_200_characters_in_800_bytes(self) -> None:
        assert open_envelope(Record(key="🙂".encode() * 200)).session_id == "🙂" * 200
        code, message = refused(Record(key=b"s" * 20 * MB))
        assert (code, message) == (
            "invalid-envelope",
            f"the key must be a session id, but it has {20 * MB} bytes",
        )
        assert refused(Record(key=b"s" * 201))[0] == "invalid-envelope"

    @pytest.mark.parametrize(
        ("name", "longest"), [("ce_id", 64), ("ce_source", 2048), ("ce_type", 256)], ids=lambda one: str(one)
    )
    def test_a_header_that_is_known_has_the_limit_of_its_field(self, name: str, longest: int) -> None:
        fitting = "é".encode() * longest
        assert open_envelope(Record(headers=headers(**{name: fitting})))
        for longer in (fitting + b"x", b"x" * 50_000):
            code, message = refused(Record(headers=headers(**{name: longer})))
            assert (code, name in message) == ("invalid-envelope", True)

    def test_headers_have_64_kib_together(self) -> None:
        usual = sum(len(name) + len(value) for name, value in headers())
        room = MAX_HEADERS_BYTES - usual - len("more")
        assert open_envelope(Record(headers=[*headers(), ("more", b"x" * room)]))
        code, message = refused(Record(headers=[*headers(), ("more", b"x" * (room + 1))]))
        assert code == "invalid-envelope"
        assert "65537 bytes, at most 1000 of 65536 bytes together are allowed" in message

    def test_there_are_at_most_1000_of_them(self) -> None:
        more = [("", b"")] * (MAX_HEADERS - len(headers()))
        assert open_envelope(Record(headers=[*headers(), *more]))
        assert refused(Record(headers=[*headers(), *more, ("", b"")]))[0] == "invalid-envelope"

    def test_a_value_has_16_mib(self) -> None:
        within = BODY + b" " * (MAX_COMMAND_BYTES - len(BODY))
        assert open_envelope(Record(value=within)).body == within
        code, message = refused(Record(value=within + b" "))
        assert (code, f"has {MAX_COMMAND_BYTES + 1} bytes" in message) == ("too-large", True)

    def test_an_event_has_at_most_1000_attributes(self) -> None:
        assert open_envelope(Record(value=event(**{f"e{n}": n for n in range(900)}), headers=[STRUCTURED]))
        code, _ = refused(Record(value=event(**{f"e{n}": n for n in range(1001)}), headers=[STRUCTURED]))
        assert code == "invalid-envelope"

    @pytest.mark.parametrize("name", ["id", "source", "type"])
    def test_attributes_of_an_event_have_the_same_limits(self, name: str) -> None:
        code, _ = refused(Record(value=event(**{name: "x" * MB}), headers=[STRUCTURED]))
        assert code == "invalid-envelope"


class TestTraces:
    @pytest.mark.parametrize("sent", [b"x" * 10 * MB, b"", GOOD.upper(), GOOD + b"-01"])
    def test_one_that_is_not_valid_is_dropped_and_the_command_is_not(self, sent: bytes) -> None:
        for record in (
            Record(headers=headers(sent)),
            Record(headers=[("traceparent", sent), *headers()]),
            Record(value=event(traceparent=sent.decode()), headers=[STRUCTURED]),
        ):
            assert open_envelope(record).traceparent is None
            result, rejected = answered(record)
            assert rejected is None
            assert "traceparent" not in dict(result.headers)

    def test_it_is_not_kept_with_a_rejected_command_either(self) -> None:
        result, row = answered(Record(value=b"{", headers=headers(b"x" * 20 * MB)))
        assert row is not None
        assert (row.code, row.headers_bytes) == ("invalid-body", 20 * MB + 138)
        assert "traceparent" not in dict(row.headers)
        assert sum(len(value) for _, value in result.headers) < 1000

    @pytest.mark.parametrize("sent", [GOOD, b"01" + GOOD[2:] + b"-future"])
    def test_a_valid_one_is_passed_on(self, sent: bytes) -> None:
        for record in (
            Record(headers=headers(sent)),
            Record(headers=[("traceparent", sent), *headers()]),
            Record(value=event(traceparent=sent.decode()), headers=[STRUCTURED]),
        ):
            assert dict(answered(record)[0].headers)["traceparent"] == GOOD


class TestWhatIsKept:
    def test_a_rejected_value_is_cut_at_1_mib_and_its_size_noted(self) -> None:
        _, row = answered(Record(value=b"x" * MB))
        assert row is not None
        assert (row.value, row.value_bytes) == (b"x" * MB, None)
        _, row = answered(Record(value=b"x" * (MB + 1)))
        assert row is not None
        assert (row.value, row.value_bytes) == (b"x" * MB, MB + 1)

    def test_headers_are_kept_whole_as_long_as_they_fit(self) -> None:
        sent = [("a", b"x" * 60_000), ("b", b"x" * 60_000), ("c", b"x")]
        _, row = answered(Record(headers=sent))
        assert row is not None
        assert (row.headers, row.headers_bytes) == (sent[:1], 120_004)
        _, row = answered(Record(headers=[("", b"")] * 5_000))
        assert row is not None
        assert (len(row.headers), row.headers_bytes) == (MAX_HEADERS, 0)

    def test_of_a_key_that_is_too_long_the_beginning_is_kept_and_the_result_has_none(self) -> None:
        result, row = answered(Record(key=b"s" * MB))
        assert row is not None
        assert (row.key, row.session_id) == (b"s" * 800, None)
        assert result.key is None
        assert answered(Record(key=b"\xff"))[0].key == b"\xff"

    def test_messages_are_bounded(self) -> None:
        row = RejectedRow(1, None, None, "conflict", "x" * MB, None, None, [], 0)
        assert len(kept(row).message) == 4096

    def test_what_is_cut_stays_as_it_is_when_it_is_cut_again(self) -> None:
        whole = RejectedRow(
            1, None, None, "c", "m", b"k" * 900, b"v" * 2 * MB, [("a", b"x" * MB), ("b", b"")], 0
        )
        once = kept(whole)
        assert kept(once) == once
        assert (len(once.value or b""), once.value_bytes, once.headers_bytes) == (
            MAX_KEPT_VALUE,
            2 * MB,
            MB + 2,
        )


class TestHowManyAreKept:
    """The newest rejected commands of a partition, as many as fit, wherever batches end."""

    def row(self, offset: int, size: int) -> RejectedRow:
        return RejectedRow(offset, None, None, "c", "m", b"k", b"v" * size, [("h", b"x")], 0)

    @given(
        st.lists(st.integers(0, 60), max_size=40),
        st.lists(st.integers(1, 9), min_size=1, max_size=5),
        st.integers(1, 4),
        st.integers(1, 5),
        st.integers(1, 150),
        st.integers(0, 20),
    )
    def test_the_newest_that_fit(
        self, sizes: list[int], batches: list[int], parts: int, rows: int, most: int, since: int
    ) -> None:
        made = [self.row(offset * 3, size) for offset, size in enumerate(sizes)]
        counted = [row for row in made if row.offset >= since]
        # Written once more, part by part.
        expected: list[list[RejectedRow]] = [[]]
        for row in counted:
            if expected[-1] and (
                len(expected[-1]) == rows or sum(map(kept_size, [*expected[-1], row])) > most
            ):
                expected.append([])
            expected[-1].append(row)
        kept_parts = expected[-parts:]
        with (
            patch("waypost_worker.partition.kept.PARTS", parts),
            patch("waypost_worker.partition.kept.PART_ROWS", rows),
            patch("waypost_worker.partition.kept.PART_BYTES", most),
        ):
            window, dropped, left, turns = RejectedWindow(since), 0, made, cycle(batches)
            while left:
                size = next(turns)
                window, added = make_room(window, left[:size])
                dropped += added
                left = left[size:]
        assert dropped == len(counted) - sum(map(len, kept_parts))
        assert [count for _, count in window.parts] == [len(part) for part in kept_parts]
        assert window.newest_bytes == sum(map(kept_size, kept_parts[-1]))
        firsts = [part[0].offset for part in kept_parts if part]
        # Until something is dropped, what was stored before counting began stays.
        assert [first for first, _ in window.parts] == ([0, *firsts[1:]] if not dropped else firsts)

    def test_at_most_10_000_rows_and_256_mib_are_kept(self) -> None:
        assert PARTS * PART_ROWS == 10_000
        assert PARTS * PART_BYTES == 256 * MB
        window, _ = make_room(RejectedWindow(), [self.row(offset, 0) for offset in range(10_000)])
        assert window.below == 0
        window, dropped = make_room(window, [self.row(10_000, 0)])
        assert (window.below, dropped) == (1250, 1250)

    def test_the_wording_of_a_message_does_not_count(self) -> None:
        row = self.row(0, 5)
        assert kept_size(row) == kept_size(row._replace(message="m" * 4096)) == 1 + 5 + len(headers_json(row))
        assert kept_size(row._replace(key=None, value=None, headers=[])) == len(b"[]")


class TestTheIdOfARejectedCommand:
    """It is in the result, so it must stay what it was, however it is found."""

    @pytest.mark.parametrize("padding", [0, 100_000])
    def test_is_that_of_the_event(self, padding: int) -> None:
        value = event(type="unknown", more="x" * padding)
        assert glimpse(Record(value=value, headers=[STRUCTURED]))[0] == "c-1"
        assert glimpse(Record(value=value[:-1], headers=[STRUCTURED]))[0] is None

    @pytest.mark.parametrize("padding", [0, 100_000])
    def test_the_last_one_counts(self, padding: int) -> None:
        value = event(type="unknown", more="x" * padding)[:-1] + b',"id":"c-2"}'
        assert glimpse(Record(value=value, headers=[STRUCTURED]))[0] == "c-2"

    def test_a_header_comes_before_it(self) -> None:
        record = Record(value=event(), headers=[STRUCTURED, ("ce_id", b"h-1")])
        assert glimpse(record)[0] == glimpse(record, open_envelope(record))[0] == "h-1"
        record = Record(value=event(), headers=[STRUCTURED, ("ce_id", b"x" * 65)])
        assert glimpse(record)[0] is None

    def test_one_that_was_read_is_not_looked_for_again(self) -> None:
        record = Record(value=event(), headers=[STRUCTURED])
        assert glimpse(record, open_envelope(record)._replace(id="read"))[0] == "read"
        assert glimpse(Record(), open_envelope(Record()))[0] == "c-1"

    @pytest.mark.parametrize("found", [1, None, "", "x" * 65, "a\nb", ["c-1"]])
    def test_invalid_ids_are_not_ids(self, found: Any) -> None:
        for padding in (0, 100_000):
            value = event(id=found, more="x" * padding)
            assert glimpse(Record(value=value, headers=[STRUCTURED]))[0] is None


def test_large_parts_cost_neither_time_nor_memory() -> None:
    hostile = [
        Record(key=b"k" * 50 * MB),
        Record(value=b"{", headers=headers(b"t" * 50 * MB)),
        Record(headers=headers(ce_id=b"i" * 50 * MB)),
        Record(headers=[*headers(), ("x", b"y" * 50 * MB)]),
        Record(value=b"v" * 50 * MB),
        Record(value=b"v" * 50 * MB, headers=[STRUCTURED]),
    ]
    tracemalloc.start()
    began = time.process_time()
    for record in hostile:
        result, row = answered(record)
        assert row is not None
        assert len(result.value) + len(result.key or b"") < 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MB  # of 50
    assert time.process_time() - began < 2
