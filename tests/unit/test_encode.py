"""What a publisher refuses at the call, and that it names the argument."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from tests.support.commands import create_body

from waypost.errors import InvalidCommandError, WaypostError
from waypost.wire import encode

KB = 1024


def refusal(call: Callable[..., Any], *arguments: Any) -> tuple[str, str]:
    with pytest.raises(InvalidCommandError) as caught:
        call(*arguments)
    assert isinstance(caught.value, WaypostError)
    assert isinstance(caught.value, ValueError)
    return caught.value.code, caught.value.message


def test_a_create_is_name_metadata_data() -> None:
    assert create_body("n", {"a": 1}) == b'{"name":"n","data":{"a":1}}'
    assert create_body("n", {}, {"b": 1, "a": 2}) == b'{"name":"n","metadata":{"a":2,"b":1},"data":{}}'
    assert create_body("n", {}, {}) == create_body("n", {}, None) == b'{"name":"n","data":{}}'


def test_a_name_may_be_a_string_enum() -> None:
    class Stage(StrEnum):
        STARTED = "started"

    assert create_body(Stage.STARTED, {}) == b'{"name":"started","data":{}}'


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((1, {}), "invalid-body", "name must be a string, not int"),
        ((None, {}), "invalid-body", "name must be a string, not NoneType"),
        (("", {}), "invalid-body", "name is empty"),
        (("n" * 201, {}), "invalid-body", "name has 201 characters, at most 200 are allowed"),
        (("a\nb", {}), "invalid-body", "name contains a control character"),
        (("\ud800", {}), "invalid-body", "name contains a lone surrogate"),
        (("n", []), "invalid-body", "data must be a dict, not list"),
        (("n", None), "invalid-body", "data must be a dict, not NoneType"),
        (("n", {"a": {"b": math.nan}}), "invalid-body", "data.a.b: nan is not a JSON number"),
        (("n", {"at": datetime.now(UTC)}), "invalid-body", "data.at: a datetime is not JSON"),
        (("n", {"a": 2**64}), "invalid-body", "data.a: an integer of 65 bits"),
        (
            ("n", {"a": "x" * (900 * KB - 7)}),
            "too-large",
            "data has 921601 bytes, at most 921600 are allowed",
        ),
        (("n", {}, []), "invalid-body", "metadata must be a dict, not list"),
        (("n", {}, ""), "invalid-body", "metadata must be a dict, not str"),
        (("n", {}, {"a": "\0"}), "invalid-body", "metadata contains U+0000"),
        (("n", {}, {"a": math.inf}), "invalid-body", "metadata.a: inf is not a JSON number"),
        (("n", {}, {"a": "x" * (16 * KB - 7)}), "too-large", "metadata has 16385 bytes"),
    ],
)
def test_a_create_that_breaks_a_limit(arguments: tuple[Any, ...], code: str, message: str) -> None:
    found = refusal(create_body, *arguments)
    assert found == refusal(encode.create_action, *arguments)
    assert (found[0], found[1][: len(message)]) == (code, message)


def test_the_limits_themselves_pass() -> None:
    body = create_body("n" * 200, {"a": "x" * (900 * KB - 8)}, {"a": "x" * (16 * KB - 8)})
    assert len(body) > 916 * KB


def test_session_ids_have_1_to_200_characters_without_control_characters() -> None:
    for session_id in ("s", "s" * 200, "a:b", "Lauf 7"):
        assert encode.check_session_id(session_id) == session_id
    for wrong, message in (
        ("", "the session id is empty"),
        ("s" * 201, "the session id has 201 characters"),
        ("a\0", "the session id contains a control character"),
        (7, "a session id must be a string, not int"),
        (b"s", "a session id must be a string, not bytes"),
    ):
        code, found = refusal(encode.check_session_id, wrong)
        assert code == "invalid-envelope"
        assert found.startswith(message)


@pytest.mark.parametrize("build", [encode.checkpoint_body, encode.rollback_body])
def test_checkpoint_ids(build: Callable[[Any], bytes]) -> None:
    assert b'"checkpoint_id":"s:1"' in build("s:1")
    for wrong, message in (
        (1, "checkpoint_id must be a string, not int"),
        ("", "checkpoint_id is empty"),
        ("c" * 257, "checkpoint_id has 257 characters, at most 256 are allowed"),
        ("a\n", "checkpoint_id contains a control character"),
    ):
        assert refusal(build, wrong) == ("invalid-body", message)


def test_a_policy_names_only_what_it_changes() -> None:
    assert encode.policy_body({}) == b"{}"
    assert encode.policy_body({"max_age": None, "keep_recent": 3}) == b'{"max_age":null,"keep_recent":3}'
    assert encode.policy_changes({"max_age": 2, "keep_recent": 3}) == (
        ("keep_recent", 3),
        ("max_age", 2_000_000),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"max_checkpoints": 1},
        {"max_checkpoints": 10_001},
        {"compress_after": 0},
        {"keep_recent": -1},
        {"max_age": 0},
        {"max_age": math.nan},
        {"max_age": math.inf},
        {"max_age": "1"},
        {"keep_recent": True},
        {"keep_recent": 1.0},
        {"maximum": 1},
    ],
)
def test_a_policy_out_of_bounds_names_its_field(changes: dict[str, Any]) -> None:
    code, message = refusal(encode.policy_body, changes)
    assert (code, message.startswith(next(iter(changes)))) == ("invalid-body", True)
