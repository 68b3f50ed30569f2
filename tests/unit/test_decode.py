"""Command bodies from the wire: every kind of bad input is refused with a code and a message that helps."""

from typing import Any

import orjson
import pytest
from tests.support.encrypted_data import ENCRYPTED, compact
from tests.unit.wire import ITEM, create, refusal

from waypost.model.commands import (
    Action,
    Clear,
    Configure,
    ConfigureAuthority,
    ConfigureDefaults,
    Create,
    Delete,
    Erase,
    Expire,
    Import,
    ImportItem,
    Pin,
    Rollback,
    Skip,
    Unpin,
)
from waypost.wire.decode import _plain_create, parse_body
from waypost.wire.event_types import COMMAND_TYPES, EventType


@pytest.mark.parametrize(
    ("command_type", "body", "action"),
    [
        (EventType.CREATE, b'{"name":"n","data":{"a":1}}', Create("n", b'{"a":1}')),
        (
            EventType.CREATE,
            b'{"data": {"a": 1.0}, "metadata": {"b": 1, "a": {}}, "name": "n"}',
            Create("n", b'{"a": 1.0}', b'{"a":{},"b":1}'),
        ),
        (EventType.PIN, b'{"checkpoint_id":"s:1"}', Pin("s:1")),
        (EventType.UNPIN, b'{"checkpoint_id":"s:1"}', Unpin("s:1")),
        (EventType.DELETE, b'{"checkpoint_id":"s:1"}', Delete("s:1")),
        (EventType.CLEAR, b"{}", Clear()),
        (EventType.ROLLBACK, b'{"checkpoint_id":"s:1"}', Rollback("s:1")),
        (EventType.ROLLBACK, b'{"checkpoint_id":"s:1","discard_later":true}', Rollback("s:1", True)),
        (EventType.IMPORT, b'{"checkpoints":[]}', Import((), "skip")),
        (
            EventType.IMPORT,
            b'{"on_conflict":"reject","checkpoints":[ {"id":"a:1","name":"n","data":{ },'
            b'"timestamp":"1970-01-01T00:00:01Z","metadata":{"b":1,"a":2}} ]}',
            Import((ImportItem("a:1", "n", 1_000_000, b"{ }", b'{"a":2,"b":1}'),), "reject"),
        ),
        (EventType.CONFIGURE, b"{}", Configure(())),
        (
            EventType.CONFIGURE,
            b'{"max_age":1.5,"max_checkpoints":7}',
            Configure((("max_checkpoints", 7), ("max_age", 1_500_000))),
        ),
        (EventType.CONFIGURE, b'{"max_age":null}', Configure((("max_age", None),))),
        (EventType.EXPIRE, b'{"idle_since":"1970-01-01T00:00:01Z"}', Expire(1_000_000)),
        (
            EventType.EXPIRE,
            b'{"pinned":true,"idle_since":"1970-01-01T01:00:00+01:00"}',
            Expire(0, pinned=True),
        ),
        (EventType.ERASE, b"{}", Erase()),
        (EventType.CONFIGURE_DEFAULTS, b'{"keep_recent":0}', ConfigureDefaults((("keep_recent", 0),))),
        (EventType.CONFIGURE_AUTHORITY, b'{"key":null}', ConfigureAuthority(None)),
        (
            EventType.SKIP,
            b'{"offset":7,"record":"0123456789abcdef0123456789abcdef","reason":"bug"}',
            Skip(7, bytes.fromhex("0123456789abcdef" * 2), "bug"),
        ),
        (
            EventType.CONFIGURE_AUTHORITY,
            b'{"key":"ERERERERERERERERERERERERERERERERERERERERERE="}',
            ConfigureAuthority(b"\x11" * 32),
        ),
    ],
)
def test_what_each_body_means(command_type: str, body: bytes, action: Action) -> None:
    assert parse_body(command_type, body) == action


class TestTheFastWay:
    """What a publisher commonly writes is recognised without the models."""

    @pytest.mark.parametrize(
        "body",
        [
            b'{"name":"n","data":{}}',
            b'{"name":"task_started","metadata":{"a":"b","c":[1]},"data":{"a":{"b":[1,null]}}}',
            b'{"name":"n","data":{"at":1764000000000000000}}',
            b'{"name":"n","data":{"messages":[' + b",".join([b'{"role":"user","n":[]}'] * 500) + b"]}}",
        ],
    )
    def test_it_takes(self, body: bytes) -> None:
        assert _plain_create(body) == create(body)

    @pytest.mark.parametrize("metadata", [b"", b'"metadata":{},', b'"metadata":{"a":1},'])
    def test_it_knows_encrypted_data_at_a_glance(self, metadata: bytes) -> None:
        body = b'{"name":"n",' + metadata + b'"data":' + compact(ENCRYPTED) + b"}"
        found = _plain_create(body)
        assert found is not None
        assert found.encrypted
        assert found.data == compact(ENCRYPTED)

    @pytest.mark.parametrize(
        "body",
        [
            b'{"name":"n","data":{} }',
            b' {"name":"n","data":{}}',
            b'{"name":"n","data":{}}\n',
            b'{"name":"\\u006e","data":{}}',
            b'{"name":"n","metadata":{"a":"}"},"data":{}}',
            b'{"name":"n","metadata":{"a":{}},"data":{}}',
            b'{"data":{},"name":"n"}',
            b'{"name":"n","data":{},"metadata":{"a":{}}}',
        ],
    )
    def test_it_leaves_to_the_general_way(self, body: bytes) -> None:
        assert _plain_create(body) is None
        assert create(body).name == "n"


def test_white_space_around_data_is_not_part_of_it() -> None:
    assert create(b'{"name":"n","data": {"a" : 1}\n }').data == b'{"a" : 1}'
    assert create(b'{"name":"n","data":{"a":1} }').data == b'{"a":1}'


class TestNotJSON:
    @pytest.mark.parametrize("command_type", COMMAND_TYPES)
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" ",
            b"{",
            b'{"name":',
            b"{}{}",
            b"{'a':1}",
            b"\xff\xfe",
            b"\xef\xbb\xbf{}",
            b'{"a":"\xff"}',
            b"{,}",
        ],
    )
    def test_broken_json(self, command_type: str, body: bytes) -> None:
        code, message = refusal(command_type, body)
        assert code == "invalid-body"
        assert message.startswith("the body is not JSON: ")

    @pytest.mark.parametrize("command_type", COMMAND_TYPES)
    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"[]", "an array"),
            (b"null", "null"),
            (b"1", "a number"),
            (b'"a"', "a string"),
            (b"true", "a boolean"),
        ],
    )
    def test_json_that_is_not_an_object(self, command_type: str, body: bytes, kind: str) -> None:
        assert refusal(command_type, body) == (
            "invalid-body",
            f"the body must be a JSON object, not {kind}: send {{...}}",
        )

    @pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
    @pytest.mark.parametrize("field", [b"data", b"metadata"])
    def test_nan_and_infinity(self, number: bytes, field: bytes) -> None:
        body = b'{"name":"n","data":{},"metadata":{}}'.replace(
            b'"' + field + b'":{}', b'"%b":{"a":%b}' % (field, number)
        )
        assert refusal(EventType.CREATE, body)[0] == "invalid-body"


@pytest.mark.parametrize("command_type", ["", "create", EventType.CREATED, "WAYPOST.CHECKPOINT.CREATE"])
def test_errors_for_unknown_types_list_the_known_ones(command_type: str) -> None:
    code, message = refusal(command_type, b"{}")
    assert code == "unsupported-type"
    assert all(known in message for known in COMMAND_TYPES)


class TestFields:
    @pytest.mark.parametrize(
        ("command_type", "body", "problem"),
        [
            (EventType.CREATE, {"data": {}}, "name: Field required"),
            (EventType.CREATE, {"name": "n"}, "data: Field required"),
            (EventType.PIN, {}, "checkpoint_id: Field required"),
            (EventType.ROLLBACK, {"discard_later": True}, "checkpoint_id: Field required"),
            (EventType.IMPORT, {}, "checkpoints: Field required"),
            *[
                (
                    EventType.IMPORT,
                    {"checkpoints": [{k: v for k, v in ITEM.items() if k != key}]},
                    f"checkpoints.0.{key}: Field required",
                )
                for key in ITEM
            ],
        ],
    )
    def test_missing(self, command_type: str, body: dict[str, Any], problem: str) -> None:
        assert refusal(command_type, body) == ("invalid-body", problem)

    @pytest.mark.parametrize(
        ("key", "problem"),
        [
            ("AAAA", "key: has 3 bytes, an Ed25519 public key has 32"),
            ("no key", "key: is not base64 of a key"),
            ("A" * 1_000_000, "key: is not base64 of a key"),
            ("A" * 43 + "=", "key: is not a key that only its holder can sign for"),
            (b"".hex(), "key: has 0 bytes"),
        ],
    )
    def test_key(self, key: str, problem: str) -> None:
        code, message = refusal(EventType.CONFIGURE_AUTHORITY, {"key": key})
        assert code == "invalid-body"
        assert message.startswith(problem)

    @pytest.mark.parametrize(
        ("command_type", "body"),
        [
            (EventType.CREATE, {"name": "n", "data": {}, "pinned": True}),
            (EventType.PIN, {"checkpoint_id": "s:1", "pinned": True}),
            (EventType.CLEAR, {"pinned": True}),
            (EventType.ROLLBACK, {"checkpoint_id": "s:1", "pinned": True}),
            (EventType.IMPORT, {"checkpoints": [], "pinned": True}),
            (EventType.IMPORT, {"checkpoints": [{**ITEM, "pinned": True}]}),
            (EventType.CONFIGURE, {"pinned": True}),
            (EventType.EXPIRE, {"idle_since": "2026-11-24T08:24:59Z", "unpinned": True}),
            (EventType.ERASE, {"pinned": True}),
            (EventType.CONFIGURE_DEFAULTS, {"pinned": True}),
            (EventType.CONFIGURE_AUTHORITY, {"key": None, "pinned": True}),
            (EventType.SKIP, {"offset": 1, "record": "0" * 32, "reason": "bug", "pinned": True}),
        ],
    )
    def test_unknown(self, command_type: str, body: dict[str, Any]) -> None:
        code, message = refusal(command_type, body)
        assert code == "invalid-body"
        assert "pinned: unknown field; remove it" in message

    @pytest.mark.parametrize(
        ("command_type", "body", "field"),
        [
            (EventType.CREATE, {"name": 1, "data": {}}, "name"),
            (EventType.CREATE, {"name": None, "data": {}}, "name"),
            (EventType.CREATE, {"name": "n", "data": []}, "data"),
            (EventType.CREATE, {"name": "n", "data": None}, "data"),
            (EventType.CREATE, {"name": "n", "data": "{}"}, "data"),
            (EventType.CREATE, {"name": "n", "data": {}, "metadata": []}, "metadata"),
            (EventType.CREATE, {"name": "n", "data": {}, "metadata": None}, "metadata"),
            (EventType.DELETE, {"checkpoint_id": 1}, "checkpoint_id"),
            (EventType.ROLLBACK, {"checkpoint_id": "s:1", "discard_later": 1}, "discard_later"),
            (EventType.ROLLBACK, {"checkpoint_id": "s:1", "discard_later": "true"}, "discard_later"),
            (EventType.IMPORT, {"checkpoints": {}}, "checkpoints"),
            (EventType.IMPORT, {"checkpoints": [[]]}, "checkpoints.0"),
            (EventType.IMPORT, {"checkpoints": [], "on_conflict": "merge"}, "on_conflict"),
            (EventType.IMPORT, {"checkpoints": [{**ITEM, "timestamp": 1}]}, "checkpoints.0.timestamp"),
            (EventType.CONFIGURE, {"max_checkpoints": 10.0}, "max_checkpoints"),
            (EventType.CONFIGURE, {"max_checkpoints": "10"}, "max_checkpoints"),
            (EventType.CONFIGURE, {"max_checkpoints": None}, "max_checkpoints"),
            (EventType.CONFIGURE, {"keep_recent": True}, "keep_recent"),
            (EventType.CONFIGURE, {"max_age": "10"}, "max_age"),
            (EventType.EXPIRE, {}, "idle_since"),
            (EventType.EXPIRE, {"idle_since": 1_795_508_699}, "idle_since"),
            (EventType.EXPIRE, {"idle_since": "2026-11-24T08:24:59"}, "idle_since"),
            (EventType.EXPIRE, {"idle_since": "2026-11-24T08:24:59Z", "pinned": 1}, "pinned"),
            (EventType.CONFIGURE, {"max_age": False}, "max_age"),
        ],
    )
    def test_wrong_types(self, command_type: str, body: dict[str, Any], field: str) -> None:
        code, message = refusal(command_type, body)
        assert code == "invalid-body"
        assert message.startswith(field)

    def test_at_most_three_problems_are_listed(self) -> None:
        assert refusal(EventType.CREATE, {f"field{n}": 1 for n in range(4)})[1].endswith("; and 3 more")

    @pytest.mark.parametrize(
        "body",
        [
            b'{"name":"n","name":"n","data":{}}',
            b'{"name":"n","data":{},"data":{}}',
            b'{"name":"n","metadata":{},"metadata":{},"data":{}}',
            b'{"name":"n","data":{},"\\u006eame":"n"}',
        ],
    )
    def test_a_key_twice(self, body: bytes) -> None:
        code, message = refusal(EventType.CREATE, body)
        assert code == "invalid-body"
        assert "appears twice: send it once" in message

    def test_a_key_twice_in_an_imported_checkpoint(self) -> None:
        item = orjson.dumps(ITEM)[:-1] + b',"data":{"a":1}}'
        assert "appears twice" in refusal(EventType.IMPORT, b'{"checkpoints":[' + item + b"]}")[1]

    def test_a_key_twice_inside_data_is_the_agents_business(self) -> None:
        assert create(b'{"name":"n","data":{"a":1,"a":2}}').data == b'{"a":1,"a":2}'


class TestNamesAndIds:
    @pytest.mark.parametrize("name", ["n", "n" * 200, "🙂" * 200, "Prüfung 検査"])
    def test_1_to_200_characters(self, name: str) -> None:
        assert create({"name": name, "data": {}}).name == name

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("", "is empty"),
            ("n" * 201, "has 201 characters, at most 200 are allowed"),
            ("🙂" * 201, "has 201 characters, at most 200 are allowed"),
            ("a\nb", "contains a control character"),
            ("a\0b", "contains a control character"),
            ("a\x7f", "contains a control character"),
            ("a\x85b", "contains a control character"),
        ],
    )
    def test_others_are_refused(self, name: str, problem: str) -> None:
        assert refusal(EventType.CREATE, {"name": name, "data": {}}) == ("invalid-body", f"name: {problem}")
        assert refusal(EventType.IMPORT, {"checkpoints": [{**ITEM, "name": name}]}) == (
            "invalid-body",
            f"checkpoints.0.name: {problem}",
        )

    @pytest.mark.parametrize(
        "command_type", [EventType.PIN, EventType.UNPIN, EventType.DELETE, EventType.ROLLBACK]
    )
    def test_checkpoint_ids_have_1_to_256_characters(self, command_type: str) -> None:
        parse_body(command_type, orjson.dumps({"checkpoint_id": "c" * 256}))
        for wrong in ("", "c" * 257, "a\tb"):
            assert refusal(command_type, {"checkpoint_id": wrong})[0] == "invalid-body"
        assert refusal(EventType.IMPORT, {"checkpoints": [{**ITEM, "id": "c" * 257}]})[0] == "invalid-body"
