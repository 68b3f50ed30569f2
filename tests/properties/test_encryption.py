"""Encrypted data, whatever it holds: it comes back byte for byte, and nothing else does."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.properties.naive import looks_encrypted
from tests.support.encrypted_data import ENCRYPTED, NEARLY_ENCRYPTED, compact, looking_encrypted

from waypost import UnauthenticDataError
from waypost.encryption.session_key import SessionKey
from waypost.model.encrypted_data import is_encrypted, parse_encrypted
from waypost.wire.decode import parse_body
from waypost.wire.event_types import EventType

texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=4).map(orjson.dumps)
KEY = SessionKey(bytes(range(32)), "key-1", "deployment", "origin")
places = st.fixed_dictionaries({"name": texts, "command_id": texts, "session_id": texts})


@given(data=objects, place=places, by=st.sampled_from(["create", "import"]))
def test_data_comes_back_byte_for_byte(data: bytes, place: dict[str, str], by: str) -> None:
    made = KEY.encrypt(data, by=by, **place)
    assert is_encrypted(made)
    assert looks_encrypted(made)
    parsed = parse_encrypted(made)
    assert parsed is not None
    assert (parsed.session, parsed.command, parsed.by) == (place["session_id"], place["command_id"], by)
    assert parsed.origin == "origin"
    assert KEY.decrypt(parsed, place["name"]) == data
    # A worker takes it as it is.
    action: Any = parse_body(EventType.CREATE, b'{"name":"n","data":' + made + b"}")
    assert action.data == made


@given(place=places, other=places)
def test_data_opens_in_its_own_place_only(place: dict[str, str], other: dict[str, str]) -> None:
    parsed = parse_encrypted(KEY.encrypt(b'{"secret":1}', **place))
    assert parsed is not None
    moved = parsed._replace(session=other["session_id"], command=other["command_id"])
    if place == other:
        assert KEY.decrypt(moved, other["name"]) == b'{"secret":1}'
        return
    with pytest.raises(UnauthenticDataError):
        KEY.decrypt(moved, other["name"])


@pytest.mark.parametrize(
    ("deployment", "key_id", "origin"),
    [("deploymentk", "ey-1", "origin"), ("deployment", "key-2", "origin"), ("deployment", "key-1", "other")],
)
def test_the_same_key_elsewhere_opens_nothing(deployment: str, key_id: str, origin: str) -> None:
    parsed = parse_encrypted(KEY.encrypt(b"{}", "n", "c"))
    assert parsed is not None
    with pytest.raises(UnauthenticDataError):
        SessionKey(bytes(range(32)), key_id, deployment, origin).decrypt(parsed, "n")


@given(data=objects, at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_change_of_a_byte_gives_other_data(data: bytes, at: int, bit: int) -> None:
    made = bytearray(KEY.encrypt(data, "n", "c"))
    made[at % len(made)] ^= 1 << bit
    parsed = parse_encrypted(bytes(made))
    assert is_encrypted(bytes(made)) == (parsed is not None)
    if parsed is None:
        return
    try:
        opened = KEY.decrypt(parsed, "n")
    except UnauthenticDataError:
        return
    # Only the unused bits of the last base64 digit mean nothing.
    assert opened == data


members = st.dictionaries(
    st.sampled_from(["v", "alg", "key", "session", "origin", "by", "command", "nonce", "ciphertext", "more"]),
    st.sampled_from(
        [None, 1, 2, 1.0, True, "", "A256GCM", "create", "import", "s", "s" * 201, "AAAA", "AAECAwQFBgcICQoL"]
    ),
    max_size=4,
)


@given(changes=members, space=st.sampled_from(["", " ", "\n\t"]))
def test_both_ways_to_tell_what_looks_encrypted_agree(changes: dict[str, Any], space: str) -> None:
    outer = orjson.loads(ENCRYPTED)
    for name, value in changes.items():
        if value is None:
            outer["waypost.encrypted"].pop(name, None)
        else:
            outer["waypost.encrypted"][name] = value
    data = orjson.dumps(outer).replace(b'":', f'":{space}'.encode())
    assert is_encrypted(data) == looks_encrypted(data)


@pytest.mark.parametrize(
    "data", [compact(ENCRYPTED), *NEARLY_ENCRYPTED, b"{}", b'{"a":{"waypost.encrypted":1}}']
)
def test_both_ways_agree_on_what_is_nearly_encrypted(data: bytes) -> None:
    expected = data == compact(ENCRYPTED)
    assert is_encrypted(data) == looks_encrypted(data) == (parse_encrypted(data) is not None) == expected


@given(changes=members, names=st.lists(texts, min_size=2, max_size=2))
def test_the_quick_look_and_the_general_one_agree(changes: dict[str, Any], names: list[str]) -> None:
    data = compact(looking_encrypted(names[0], names[1], **changes))
    assert is_encrypted(data) == (parse_encrypted(data) is not None) == looks_encrypted(data)
