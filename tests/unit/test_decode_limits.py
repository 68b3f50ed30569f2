"""The limits of command bodies, each at its edge and one beyond."""

from typing import Any

import orjson
import pytest
from tests.unit.wire import ITEM, KB, create, refusal

from waypost.model.commands import Configure, Create, Import
from waypost.wire.decode import parse_body
from waypost.wire.event_types import EventType


class TestIntegers:
    @pytest.mark.parametrize("integer", [-(2**63), 2**63 - 1, 2**64 - 1])
    def test_the_limits_themselves_are_kept_exactly(self, integer: int) -> None:
        body = b'{"name":"n","metadata":{"a":%d},"data":{"a":%d}}' % (integer, integer)
        assert create(body) == Create("n", b'{"a":%d}' % integer, b'{"a":%d}' % integer)

    @pytest.mark.parametrize("integer", [-(2**63) - 1, 2**64])
    @pytest.mark.parametrize(
        "body", [b'{"name":"n","data":{"a":[%d]}}', b'{"name":"n","metadata":{"a":%d},"data":{}}']
    )
    def test_one_beyond_is_refused(self, body: bytes, integer: int) -> None:
        code, message = refusal(EventType.CREATE, body % integer)
        assert code == "invalid-body"
        assert f"{integer} does not fit in 64 bits" in message

    def test_in_imports_too(self) -> None:
        body = orjson.dumps({"checkpoints": [{**ITEM, "data": {"a": 0}}]})
        assert (
            refusal(EventType.IMPORT, body.replace(b'"a":0', b'"a":18446744073709551616'))[0]
            == "invalid-body"
        )


class TestNesting:
    """100 levels, of which the data's own braces are the first."""

    shapes = (("[", "]"), ('{"a":', "}"))
    bodies = (
        b'{"name":"n","data":%b}',
        b'{"name":"n","metadata":%b,"data":{}}',
        b'{"checkpoints":[{"id":"a:1","name":"n","timestamp":"2026-11-24T08:24:59Z","data":%b}]}',
    )

    def value(self, shape: tuple[str, str], levels: int) -> bytes:
        opening, closing = shape
        return f'{{"a":{opening * (levels - 1)}"[{{"{closing * (levels - 1)}}}'.encode()

    @pytest.mark.parametrize("shape", shapes)
    @pytest.mark.parametrize("body", bodies)
    def test_100_are_kept_and_101_refused(self, shape: tuple[str, str], body: bytes) -> None:
        command_type = EventType.IMPORT if b"checkpoints" in body else EventType.CREATE
        assert isinstance(parse_body(command_type, body % self.value(shape, 100)), Create | Import)
        code, message = refusal(command_type, body % self.value(shape, 101))
        assert code == "invalid-body"
        assert "deeper than 100 levels" in message

    def test_the_fast_way_counts_the_metadatas_levels_too(self) -> None:
        body = b'{"name":"n","metadata":{"a":' + b"[" * 100 + b"]" * 100 + b'},"data":{}}'
        assert refusal(EventType.CREATE, body)[0] == "invalid-body"


class TestNul:
    @pytest.mark.parametrize("metadata", [{"a": "\0"}, {"\0": 1}, {"a": [{"b": "x\0y"}]}])
    def test_is_refused_in_metadata(self, metadata: dict[str, Any]) -> None:
        code, message = refusal(EventType.CREATE, {"name": "n", "data": {}, "metadata": metadata})
        assert code == "invalid-body"
        assert message.startswith("metadata contains U+0000")
        code, message = refusal(EventType.IMPORT, {"checkpoints": [{**ITEM, "metadata": metadata}]})
        assert message.startswith("checkpoints.0.metadata contains U+0000")

    def test_is_allowed_in_data(self) -> None:
        assert create(b'{"name":"n","data":{"\\u0000":"\\u0000"}}').data == b'{"\\u0000":"\\u0000"}'


class TestSizes:
    def test_data_of_900_kb_is_kept_and_one_byte_more_refused(self) -> None:
        data = b'{"a":"' + b"x" * (900 * KB - 8) + b'"}'
        for front in (b'{"name":"n","data":', b'{"name": "n","data":'):  # the fast way and the general way
            assert len(create(front + data + b"}").data) == 900 * KB
            code, message = refusal(EventType.CREATE, front + data.replace(b"x", b"xx", 1) + b"}")
            assert code == "too-large"
            assert message.startswith("data has 921601 bytes, at most 921600 are allowed")

    def test_bytes_count_not_characters(self) -> None:
        data = '{"a":"' + "ü" * (450 * KB) + '"}'
        assert refusal(EventType.CREATE, f'{{"name":"n","data":{data}}}'.encode())[0] == "too-large"

    def test_imported_data_has_the_same_limit_and_is_named(self) -> None:
        body = {"checkpoints": [ITEM, {**ITEM, "data": {"a": "x" * 900 * KB}}]}
        code, message = refusal(EventType.IMPORT, body)
        assert code == "too-large"
        assert message.startswith("checkpoints.1.data has")

    def test_metadata_of_16_kb_is_kept_and_one_byte_more_refused(self) -> None:
        fits = {"a": "x" * (16 * KB - 8)}
        assert len(create({"name": "n", "metadata": fits, "data": {}}).metadata) == 16 * KB
        code, message = refusal(
            EventType.CREATE, {"name": "n", "metadata": {"a": fits["a"] + "x"}, "data": {}}
        )
        assert code == "too-large"
        assert message.startswith("metadata has 16385 bytes of JSON, at most 16384 are allowed")
        code, message = refusal(
            EventType.IMPORT, {"checkpoints": [{**ITEM, "metadata": {"a": "x" * 16 * KB}}]}
        )
        assert (code, message[:22]) == ("too-large", "checkpoints.0.metadata")

    def test_white_space_in_metadata_does_not_count(self) -> None:
        assert create(b'{"name":"n","metadata":{' + b" " * 20 * KB + b'},"data":{}}').metadata == b"{}"

    def test_an_import_has_at_most_10_000_checkpoints(self) -> None:
        item = orjson.dumps(ITEM)
        action = parse_body(EventType.IMPORT, b'{"checkpoints":[' + b",".join([item] * 10_000) + b"]}")
        assert isinstance(action, Import)
        assert len(action.checkpoints) == 10_000
        code, message = refusal(EventType.IMPORT, b'{"checkpoints":[' + b",".join([item] * 10_001) + b"]}")
        assert (code, "split the list" in message) == ("invalid-body", True)


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "yesterday",
        "2026-11-24",
        "2026-11-24T08:24:59",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-00:01",
        "10000-01-01T00:00:00Z",
    ],
)
def test_timestamps_out_of_range_or_without_zone_are_refused(timestamp: str) -> None:
    code, message = refusal(EventType.IMPORT, {"checkpoints": [{**ITEM, "timestamp": timestamp}]})
    assert code == "invalid-body"
    assert message.startswith("checkpoints.0.timestamp: ")


@pytest.mark.parametrize(
    ("field", "lowest", "highest"),
    [
        ("max_checkpoints", 2, 10_000),
        ("compress_after", 1, 10_000),
        ("keep_recent", 0, 10_000),
        ("max_age", 0.000001, 3_155_760_000),
    ],
)
def test_policies_have_bounds(field: str, lowest: float, highest: float) -> None:
    step = 0.0000001 if field == "max_age" else 1
    for command_type in (EventType.CONFIGURE, EventType.CONFIGURE_DEFAULTS):
        for allowed in (lowest, highest):
            parse_body(command_type, orjson.dumps({field: allowed}))
        for wrong in (lowest - step, highest + max(step, 0.001)):
            code, message = refusal(command_type, {field: wrong})
            assert (code, message.split(":")[0]) == ("invalid-body", field)


def test_max_age_is_in_seconds_rounded_to_the_microsecond() -> None:
    for seconds, micros in ((1, 1_000_000), (0.000001, 1), (86_400.5, 86_400_500_000), (0.1234567, 123_457)):
        assert parse_body(EventType.CONFIGURE, orjson.dumps({"max_age": seconds})) == Configure(
            (("max_age", micros),)
        )
