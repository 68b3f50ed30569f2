"""The contract's files: true to the models, valid by their own standards, and true to what really flows."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator, ValidationError
from tests.support.commands import create_body

from waypost.model.commands import ImportItem
from waypost.model.decisions import (
    Accepted,
    AuthorityConfigured,
    Cleared,
    Configured,
    DefaultsConfigured,
    Deleted,
    Duplicate,
    Erased,
    Expired,
    Imported,
    Pinned,
    Placed,
    Rejected,
    RolledBack,
    SessionKept,
    Skipped,
    Unpinned,
)
from waypost.model.index import Entry
from waypost.model.retention import RetentionPolicy
from waypost.wire import schema_export
from waypost.wire.command_models import BODIES
from waypost.wire.encode import (
    authority_body,
    checkpoint_body,
    expire_body,
    import_body,
    policy_body,
    rollback_body,
    skip_body,
)
from waypost.wire.envelope import Envelope, command_headers
from waypost.wire.event_types import COMMAND_TYPES, RESULT_TYPES, EventType
from waypost.wire.result_models import RESULTS
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import Fence, ResultRecord

DIRECTORY = Path(__file__).parents[2] / "schemas" / "json"
NOW = 1_795_508_699_123_456
IDLE_SINCE = datetime(2026, 11, 24, 8, tzinfo=UTC)
ENVELOPE = Envelope("c-1", "", "s", NOW, NOW, b"00-0abc-0def-01", b"")
ENTRY = Entry(7, "done", NOW, NOW, 1, imported_id="other:3")
CONTENT = (b'{"a":[1,2.5,null]}', b'{"m":1}')
ITEM = b'{"id":"s:1","name":"n","timestamp":"2026-11-24T08:24:59Z","data":{}}'

COMMANDS: dict[str, list[bytes]] = {
    "waypost.checkpoint.create": [create_body("n", {"a": 1}), create_body("n", {}, {"m": 1})],
    "waypost.checkpoint.pin": [checkpoint_body("s:1")],
    "waypost.checkpoint.unpin": [checkpoint_body("s:1")],
    "waypost.checkpoint.delete": [checkpoint_body("s:1")],
    "waypost.session.clear": [b"{}"],
    "waypost.session.rollback": [rollback_body("s:1"), rollback_body("s:1", True)],
    "waypost.session.import": [import_body([]), import_body([ITEM], "reject")],
    "waypost.session.configure": [policy_body({"max_age": None}), policy_body({"max_age": 1.5})],
    "waypost.session.expire": [expire_body(IDLE_SINCE), expire_body(IDLE_SINCE, pinned=True)],
    "waypost.session.erase": [b"{}"],
    "waypost.defaults.configure": [policy_body({"max_checkpoints": 3})],
    "waypost.partition.skip": [skip_body(7, bytes(16), "a bug")],
    "waypost.authority.configure": [authority_body(b"\x11" * 32), authority_body(None)],
}

# What breaks the bounds of the contract, as far as JSON Schema can say it.
WRONG: list[tuple[str, bytes]] = [
    ("waypost.checkpoint.create", b'{"name":"","data":{}}'),
    ("waypost.checkpoint.create", b'{"name":"n","data":[]}'),
    ("waypost.checkpoint.create", b'{"name":"n","data":{},"more":1}'),
    ("waypost.checkpoint.pin", b"{}"),
    ("waypost.session.clear", b'{"really":true}'),
    ("waypost.session.import", b'{"checkpoints":[],"on_conflict":"merge"}'),
    ("waypost.session.configure", b'{"max_checkpoints":1}'),
    ("waypost.session.configure", b'{"max_age":0}'),
    ("waypost.session.expire", b"{}"),
    ("waypost.session.expire", b'{"idle_since":1795508699}'),
    ("waypost.session.expire", b'{"idle_since":"2026-11-24T08:24:59Z","pinned":1}'),
    ("waypost.session.erase", b'{"really":true}'),
    ("waypost.authority.configure", b"{}"),
    ("waypost.partition.skip", b'{"offset":1,"record":"","reason":"a bug"}'),
    ("waypost.partition.skip", b'{"offset":-1,"record":"00000000000000000000000000000000","reason":"a bug"}'),
    ("waypost.partition.skip", b'{"offset":1,"record":"00000000000000000000000000000000","reason":""}'),
    ("waypost.authority.configure", b'{"key":"AAAA"}'),
    ("waypost.session.configure", b'{"max_age":4000000000}'),
]

_encoder = ResultEncoder("waypost.results", 2)


def accepted(decision: Accepted, about: Any = None) -> ResultRecord:
    return _encoder.accepted(ENVELOPE, 5, decision, about)


EMITTED: dict[str, ResultRecord] = {
    EventType.CREATED: _encoder.created(ENVELOPE, 5, ENTRY, CONTENT, (1, 2)),
    EventType.PINNED: accepted(Pinned(number=1, removed=())),
    EventType.UNPINNED: accepted(Unpinned(number=1, removed=(3,))),
    EventType.DELETED: accepted(Deleted(number=1, removed=())),
    EventType.CLEARED: accepted(Cleared(removed=(1, 2))),
    EventType.ROLLED_BACK: accepted(RolledBack(number=7, removed=()), (ENTRY, CONTENT)),
    EventType.IMPORTED: accepted(
        Imported((Placed(1, "skipped", None, ImportItem("s:1", "n", NOW, b"{}")),), removed=(1,))
    ),
    EventType.CONFIGURED: accepted(Configured(policy=RetentionPolicy(max_age=1_500_000), removed=())),
    EventType.EXPIRED: accepted(Expired(NOW, NOW - 1, removed=(1, 2))),
    EventType.ERASED: accepted(Erased(NOW, removed=(1, 2))),
    EventType.KEPT: _encoder.kept(ENVELOPE, 5, SessionKept(NOW, None)),
    EventType.DEFAULTS_CONFIGURED: _encoder.for_partition(ENVELOPE, 5, DefaultsConfigured(RetentionPolicy())),
    EventType.AUTHORITY_CONFIGURED: _encoder.for_partition(ENVELOPE, 5, AuthorityConfigured(bytes(32))),
    EventType.SKIPPED: _encoder.for_partition(ENVELOPE, 5, Skipped(3, "a bug")),
    EventType.DUPLICATE: _encoder.duplicate(ENVELOPE, 5, Duplicate(None)),
    EventType.REJECTED: _encoder.rejected(
        Rejected("invalid-envelope", "the key is not UTF-8"),
        5,
        NOW,
        key=b"\xff",
        session_id=None,
        command_id=None,
    ),
    EventType.ACQUIRED: _encoder.acquired(3, 4, Fence(1, 2)),
}


def schema(kind: str) -> Draft202012Validator:
    document = orjson.loads((DIRECTORY / f"{kind}.schema.json").read_bytes())
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def asyncapi() -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads((DIRECTORY / "asyncapi.json").read_bytes())
    return document


def test_the_files_are_those_of_the_models() -> None:
    assert schema_export.check(DIRECTORY) == []


def test_every_difference_is_found(tmp_path: Path) -> None:
    schema_export.export(tmp_path)
    assert schema_export.check(tmp_path) == []
    (tmp_path / "asyncapi.json").unlink()
    (tmp_path / "stray.json").write_text("{}")
    (tmp_path / "waypost.session.clear.schema.json").write_text("{}")
    assert schema_export.check(tmp_path) == [
        "asyncapi.json is missing",
        "stray.json belongs to no model",
        "waypost.session.clear.schema.json differs from its model",
    ]
    assert schema_export.check(tmp_path / "nothing")[0] == "asyncapi.json is missing"


def test_every_type_has_a_file_and_an_example_here() -> None:
    assert COMMANDS.keys() == BODIES.keys() == set(COMMAND_TYPES)
    assert RESULTS.keys() == set(RESULT_TYPES)
    assert EMITTED.keys() == RESULTS.keys()
    assert {path.name for path in DIRECTORY.iterdir()} == {
        "asyncapi.json",
        *(f"{kind}.schema.json" for kind in (*BODIES, *RESULTS)),
    }


@pytest.mark.parametrize("kind", COMMANDS)
def test_what_the_publisher_sends_fits_its_schema(kind: str) -> None:
    for body in COMMANDS[kind]:
        schema(kind).validate(orjson.loads(body))


@pytest.mark.parametrize(("kind", "body"), WRONG)
def test_what_the_worker_refuses_the_schema_refuses_too(kind: str, body: bytes) -> None:
    with pytest.raises(ValidationError):
        schema(kind).validate(orjson.loads(body))


@pytest.mark.parametrize("kind", EMITTED)
def test_what_the_worker_emits_fits_its_model_and_its_schema(kind: str) -> None:
    record = EMITTED[kind]
    body = orjson.loads(record.value)
    assert dict(record.headers)["ce_type"].decode() == kind
    schema(kind).validate(body)
    shown = RESULTS[kind].model_validate(body).model_dump(exclude_unset=True)
    assert shown == body


@pytest.mark.parametrize("kind", EMITTED)
def test_a_result_may_grow(kind: str) -> None:
    body = {**orjson.loads(EMITTED[kind].value), "news": {"later": 1}}
    schema(kind).validate(body)
    RESULTS[kind].model_validate(body)


def test_every_reference_within_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi()

    def follow(node: Any) -> int:
        if isinstance(node, list):
            return sum(follow(item) for item in node)
        if not isinstance(node, dict):
            return 0
        found = 0
        if isinstance(reference := node.get("$ref"), str):
            assert reference.startswith("#/")
            at: Any = document
            for step in reference[2:].split("/"):
                at = at[step]
            found = 1
        return found + sum(follow(value) for value in node.values())

    assert follow(document) >= 4 * (len(BODIES) + len(RESULTS))


def test_the_asyncapi_document_names_every_message_once_on_its_channel() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    channels = document["channels"]
    assert {name: list(each["messages"]) for name, each in channels.items()} == {
        "commands": list(BODIES),
        "results": list(RESULTS),
    }
    assert [channels[name]["address"] for name in channels] == ["waypost.commands", "waypost.results"]
    operations = document["operations"].values()
    assert [(each["action"], len(each["messages"])) for each in operations] == [
        ("receive", len(BODIES)),
        ("send", len(RESULTS)),
    ]


@pytest.mark.parametrize("kind", [*BODIES, *RESULTS])
def test_headers_fit_what_the_asyncapi_document_says(kind: str) -> None:
    document = asyncapi()
    name = document["components"]["messages"][kind]["headers"]["$ref"].rpartition("/")[2]
    described = document["components"]["schemas"][name]
    if kind in BODIES:
        sent: Any = command_headers("c-1", b"/agent", kind.encode(), b"2026-11-24T08:24:59.5Z", b"00-0-0-01")
    else:
        sent = EMITTED[kind].headers
    headers = {key: value.decode() for key, value in sent}
    Draft202012Validator(described).validate(headers)
    assert headers.keys() <= described["properties"].keys()
