"""A result names checkpoints by their ids, or by ranges of numbers if the ids take more than 1 MiB; readers see ids."""

from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.fold import named
from tests.unit.test_traceparent import GOOD

from waypost.model.commands import ImportItem
from waypost.model.decisions import Cleared, Imported, Placed
from waypost.model.index import Entry
from waypost.publisher.waiter import _result_body
from waypost.subscriber.events import Event, read_event
from waypost.wire.envelope import Envelope, command_headers
from waypost.wire.id_lists import (
    ALWAYS_FITTING,
    MAX_LIST_BYTES,
    MAX_LISTED,
    as_written_today,
    expand_ids,
    id_list_fields,
    id_list_members,
    ranges_of,
)
from waypost.wire.result_models import RESULTS
from waypost_worker.partition import outbox
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import ResultRecord
from waypost_worker.partition.tail import digest, essence

LONG = "🙂" * 200  # 800 bytes
ENCODER = ResultEncoder("waypost.results", 0)
numbers = st.lists(st.integers(1, 50) | st.integers(1, 10**16), max_size=60)


def envelope(session_id: str) -> Envelope:
    return Envelope("c-1", "", session_id, 0, 0, None, b"")


def ids(session_id: str, numbers: range | list[int]) -> list[str]:
    return [f"{session_id}:{number}" for number in numbers]


def in_full(session_id: str, numbers: list[int], name: str = "removed") -> bool:
    return bool(id_list_fields(name, session_id, numbers)[name])


def exactly_fitting() -> tuple[str, list[int]]:
    """A session and numbers whose ids take exactly 1 MiB of JSON."""
    for length in range(100, 140):
        listed = list(range(1000, 9000))
        room = MAX_LIST_BYTES - len(orjson.dumps(ids("s" * length, listed)))
        # Each digit more takes one byte.
        if 0 <= room <= len(listed):
            return "s" * length, listed[room:] + [number + 10_000 for number in listed[:room]]
    raise AssertionError("no length fits")


def test_up_to_1_mib_the_ids_are_written_and_beyond_it_their_numbers() -> None:
    session_id, listed = exactly_fitting()
    assert len(orjson.dumps(ids(session_id, listed))) == MAX_LIST_BYTES
    assert id_list_fields("removed", session_id, listed) == {"removed": ids(session_id, listed)}
    larger = [*listed[:-1], 100_000]
    assert len(orjson.dumps(ids(session_id, larger))) == MAX_LIST_BYTES + 1
    assert id_list_fields("removed", session_id, larger) == {
        "removed": [],
        "removed_ranges": ranges_of(larger),
    }


def test_the_size_is_that_of_the_json_with_its_escapes() -> None:
    quotes = '"' * 200  # two bytes each
    listed = list(range(1, 2_580))
    assert len(orjson.dumps(ids(quotes, listed))) > MAX_LIST_BYTES
    assert not in_full(quotes, listed)
    assert in_full("x" * 200, listed)


def test_short_lists_fit_whatever_the_ids_are() -> None:
    widest = [10**18 - 1 - number for number in range(ALWAYS_FITTING)]
    assert in_full(LONG, widest)
    assert len(orjson.dumps(ids(LONG, widest))) > MAX_LIST_BYTES - 1000


@pytest.mark.parametrize(
    ("listed", "ranges"),
    [
        ([], []),
        ([7], [(7, 7)]),
        ([1, 2, 3], [(1, 3)]),
        ([3, 2, 1], [(3, 3), (2, 2), (1, 1)]),
        ([5, 6, 9, 1, 2, 2, 3], [(5, 6), (9, 9), (1, 2), (2, 3)]),
    ],
)
def test_runs_are_merged_in_the_order_of_the_list(listed: list[int], ranges: list[tuple[int, int]]) -> None:
    assert ranges_of(listed) == ranges


@given(numbers)
def test_ranges_stand_for_exactly_the_ids(listed: list[int]) -> None:
    body = {"session_id": "a:b", "ids": [], "id_ranges": ranges_of(listed)}
    assert expand_ids(orjson.loads(orjson.dumps(body))) == {"session_id": "a:b", "ids": ids("a:b", listed)}


@given(numbers, st.sampled_from(["s", 'a"b', LONG]), st.booleans())
def test_a_second_implementation_writes_the_same(listed: list[int], session_id: str, many: bool) -> None:
    if many:
        listed = [*listed, *range(100, 1_400)]
    fields = orjson.loads(orjson.dumps(id_list_fields("ids", session_id, listed)))
    assert fields == named("ids", "id_ranges", session_id, listed)
    text = b"{%b}" % id_list_members(b"ids", orjson.dumps(session_id), listed)
    assert orjson.loads(text) == fields


class TestWhatReadersSee:
    gone = tuple(range(1, 4_001))

    def cleared(self) -> ResultRecord:
        return ENCODER.accepted(envelope(LONG), 5, Cleared(self.gone))

    def event(self, record: ResultRecord) -> Event:
        return read_event(SimpleNamespace(topic="t", partition=0, offset=1, timestamp=0, **record._asdict()))

    def test_the_result_itself_is_short(self) -> None:
        value = self.cleared().value
        assert orjson.loads(value)["removed_ranges"] == [[1, 4000]]
        assert len(value) < 3_000

    def test_an_event_has_ids(self) -> None:
        event = self.event(self.cleared())
        assert event.removed == event.body["removed"] == ids(LONG, range(1, 4_001))
        assert "removed_ranges" not in event.body

    def test_a_waited_result_has_ids(self) -> None:
        body = _result_body(self.cleared().value)
        assert body is not None
        assert body["removed"] == ids(LONG, range(1, 4_001))

    def test_a_result_model_has_ids(self) -> None:
        model: Any = RESULTS["waypost.session.cleared"].model_validate_json(self.cleared().value)
        assert model.removed == ids(LONG, range(1, 4_001))
        assert model.removed_ranges == []

    def test_an_import_lists_its_ids_in_the_order_of_its_items(self) -> None:
        order = [*range(2_000, 0, -1), *range(2_001, 4_001)]
        item = ImportItem("x", "n", 0, b"{}")
        placed = tuple(Placed(number, "imported", None, item) for number in order)
        body = self.event(ENCODER.accepted(envelope(LONG), 5, Imported(placed))).body
        assert body["ids"] == ids(LONG, order)
        assert body["removed"] == []

    def test_a_create_can_remove_many(self) -> None:
        entry = Entry(4_001, "n", 0, 0, 5, "c-1")
        record = ENCODER.created(envelope(LONG), 5, entry, (b'{"a" : 1}', b"{}"), self.gone)
        assert len(record.value) < 4_000
        event = self.event(record)
        assert event.removed == ids(LONG, range(1, 4_001))
        assert event.checkpoint is not None
        assert event.checkpoint.raw_data == b'{"a" : 1}'


@pytest.mark.parametrize(
    "ranges",
    [
        [[1, MAX_LISTED + 1]],
        [[1, 10**15]],
        [[2, 1]],
        [[1]],
        [1],
        None,
        [["a", "b"]],
        [[1, MAX_LISTED], [1, 1]],
    ],
)
def test_ranges_that_no_worker_writes_are_an_error_and_take_no_memory(ranges: Any) -> None:
    with pytest.raises(ValueError, match="ranges of ids"):
        expand_ids({"session_id": "s", "removed": [], "removed_ranges": ranges})
    body = {"session_id": "s", "removed": [], "removed_ranges": ranges, "command": {"id": "c", "offset": 1}}
    assert _result_body(orjson.dumps(body)) is None


class TestResultsOfVersion01:
    """It wrote every list in full. Such results are still in topics and outboxes."""

    gone = tuple(range(1, 4_001))

    def of_then(self, record: ResultRecord) -> ResultRecord:
        body = orjson.loads(record.value)
        expanded = expand_ids(dict(body))
        fields = [
            b"%b:%b" % (orjson.dumps(name), orjson.dumps(expanded[name])) for name in body if name in expanded
        ]
        return record._replace(value=b"{%b}" % b",".join(fields))

    def test_they_say_the_same(self) -> None:
        now = ENCODER.accepted(envelope(LONG), 5, Cleared(self.gone))
        then = self.of_then(now)
        assert len(then.value) > 3 * MAX_LIST_BYTES
        assert as_written_today(then.value) == now.value
        assert essence(then) == essence(now)
        assert digest(then) == digest(now)

    def test_another_list_says_something_else(self) -> None:
        then = self.of_then(ENCODER.accepted(envelope(LONG), 5, Cleared(self.gone)))
        other = ENCODER.accepted(envelope(LONG), 5, Cleared(tuple(range(2, 4_002))))
        assert digest(then) != digest(other)

    def test_data_is_compared_to_the_byte(self) -> None:
        entry = Entry(4_001, "n", 0, 0, 5, "c-1")
        now = ENCODER.created(envelope(LONG), 5, entry, (b'{"a" : 1.0}', b"{}"), self.gone)
        then = now._replace(
            value=now.value.replace(
                b'"removed":[],"removed_ranges":[[1,4000]]',
                b'"removed":' + orjson.dumps(ids(LONG, range(1, 4_001))),
            )
        )
        assert len(then.value) > MAX_LIST_BYTES
        assert digest(then) == digest(now)
        assert digest(then._replace(value=then.value.replace(b"1.0", b"1.00"))) != digest(now)

    def test_pending_results_are_emitted_as_they_are_written_today(self) -> None:
        now = ENCODER.accepted(envelope(LONG), 5, Cleared(self.gone))
        then = self.of_then(now)
        then = then._replace(headers=[*then.headers, ("traceparent", b"x" * 100_000)])
        payload = outbox.pack([outbox.whole_item(5, then)])
        assert len(payload) > 3 * MAX_LIST_BYTES
        assert outbox.results(outbox.unpack(payload), {}, ENCODER) == [(5, now)]

    def test_a_valid_trace_of_a_pending_result_is_emitted(self) -> None:
        now = ENCODER.accepted(envelope("s")._replace(traceparent=GOOD), 5, Cleared((1,)))
        assert outbox.results([outbox.whole_item(5, now)], {}, ENCODER) == [(5, now)]
        other = now._replace(headers=[*now.headers[:-1], ("traceparent", b"cc" + GOOD[2:] + b"-x")])
        assert outbox.results([outbox.whole_item(5, other)], {}, ENCODER) == [(5, now)]

    def test_a_pending_create_with_an_endless_trace_is_emitted_without_it(self) -> None:
        value = b'{"name":"n","data":{}}'
        headers = command_headers("c-1", b"/a", b"waypost.checkpoint.create", b"1970-01-01T00:00:00Z")
        record = SimpleNamespace(offset=5, timestamp=0, key=b"s", value=value, headers=headers)
        endless = SimpleNamespace(
            **vars(record) | {"headers": [*headers, ("traceparent", b"x" * 20_000_000)]}
        )
        owed: Any = [outbox.created_item(5, 1, ())]
        assert outbox.results(owed, {5: endless}, ENCODER) == outbox.results(owed, {5: record}, ENCODER)

    @pytest.mark.parametrize("tail", [b"", b"}", b',"session_id":"s"}', b',"removed":1}'])
    def test_records_other_than_results_stay_unchanged(self, tail: bytes) -> None:
        body = b'{"session_id":"s","removed":["x"],"text":"' + b"x" * MAX_LIST_BYTES + b'"' + tail
        assert as_written_today(body) == body
