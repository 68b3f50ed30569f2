"""Signatures of commands: what they cover, who can make them, and that two implementations agree."""

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st
from tests.oracle import ed25519
from tests.support.commands import structured_event

from waypost.model.authority import key_problem
from waypost.wire.envelope import command_headers, open_envelope
from waypost.wire.signing import (
    MAX_SIGNED_BODY,
    decode_key,
    decode_signature,
    encode_key,
    encode_signature,
    signed_message,
)
from waypost_worker.partition.signatures import is_signed

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
TIME = "2026-11-30T08:00:00.000001Z"
MICROS = 1_796_025_600_000_001

texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
parts = st.tuples(
    st.integers(0, 10_000), texts, texts, st.integers(-(10**15), 10**17), st.binary(max_size=40)
)


@dataclass
class Record:
    value: bytes
    headers: list[tuple[str, bytes]]
    key: bytes | None = None
    offset: int = 0
    timestamp: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def signed(partition: int = 3, kind: str = "t", name: str = "c-1", body: bytes = b"{}") -> bytes:
    return PRIVATE.sign(signed_message(partition, kind, name, MICROS, body))


def sent(signature: bytes | None, body: bytes = b"{}", name: str = "c-1", time: str = TIME) -> Record:
    attribute = None if signature is None else encode_signature(signature)
    return Record(body, command_headers(name, b"/x", b"t", time.encode(), None, attribute))


def holds(record: Record, partition: int = 3, key: bytes = PUBLIC) -> bool:
    return is_signed(open_envelope(record), partition, key)


def test_a_signed_command_is_recognized_in_both_content_modes() -> None:
    signature = signed(body=b'{"max_checkpoints": 9}')
    assert holds(sent(signature, b'{"max_checkpoints": 9}'))
    attributes = {"id": "c-1", "source": "/x", "type": "t", "signature": encode_signature(signature).decode()}
    event = structured_event(attributes, MICROS, b'{"max_checkpoints": 9}')
    assert holds(Record(event, [("content-type", b"application/cloudevents+json")]))


def test_a_signature_is_of_one_partition_type_id_time_body_and_key() -> None:
    assert holds(sent(signed()))
    assert not holds(sent(signed()), partition=4)
    assert not holds(sent(signed(kind="u")))
    assert not holds(sent(signed()), key=OTHER)
    assert not holds(sent(signed(), name="c-2"))
    assert not holds(sent(signed(), time="2026-11-30T08:00:00.000002Z"))
    assert not holds(sent(signed(), body=b"{ }"))
    assert not holds(sent(None))


def test_the_same_moment_in_another_spelling_is_the_same_time() -> None:
    assert holds(sent(signed(), time="2026-11-30T09:00:00.000001+01:00"))


@pytest.mark.parametrize("attribute", [b"", b"=", b"\xff", b"A" * 88, b"A" * 10_000, b"AAAA"])
def test_invalid_signatures_sign_nothing(attribute: bytes) -> None:
    record = Record(b"{}", command_headers("c-1", b"/x", b"t", TIME.encode(), None, attribute))
    assert not holds(record)


def test_a_body_of_more_than_64_kib_is_not_looked_at() -> None:
    largest = b"{" + b" " * (MAX_SIGNED_BODY - 2) + b"}"
    assert holds(sent(signed(body=largest), largest))
    assert not holds(sent(signed(body=largest + b" "), largest + b" "))


@given(parts, parts)
@example((1, "11", "1", 1, b""), (11, "1", "1", 1, b""))
@example((1, "t", "a", 1, b"1:1\n"), (1, "t", "a", 1, b""))
def test_no_two_commands_have_the_same_message(
    one: tuple[int, str, str, int, bytes], other: tuple[int, str, str, int, bytes]
) -> None:
    assert (signed_message(*one) == signed_message(*other)) == (one == other)
    assert signed_message(*one).startswith(b"Waypost signed command, version 1\n")


@given(st.binary(max_size=100), st.binary(min_size=32, max_size=32))
def test_the_oracle_and_the_worker_agree_on_signatures_that_hold(body: bytes, seed: bytes) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key = private.public_key().public_bytes_raw()
    assert key_problem(key) is None
    message = signed_message(3, "t", "c-1", MICROS, body)
    signature = private.sign(message)
    assert holds(sent(signature, body), key=key)
    assert ed25519.is_valid(key, message, signature)


@given(st.integers(0, 511), st.data())
def test_and_on_signatures_with_one_bit_changed(bit: int, data: Any) -> None:
    raw = bytearray(signed())
    raw[bit // 8] ^= 1 << bit % 8
    assert not holds(sent(bytes(raw)))
    assert not ed25519.is_valid(PUBLIC, signed_message(3, "t", "c-1", MICROS, b"{}"), bytes(raw))


def test_a_signature_cannot_be_bent_into_another_one() -> None:
    """S and S + L would both satisfy the equation; only the lower one is a signature."""
    raw = signed()
    larger = int.from_bytes(raw[32:], "little") + ed25519.L
    bent = raw[:32] + larger.to_bytes(32, "little")
    assert not holds(sent(bent))
    assert not ed25519.is_valid(PUBLIC, signed_message(3, "t", "c-1", MICROS, b"{}"), bent)


def test_the_first_vectors_of_rfc_8032_hold() -> None:
    vectors = (
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    )
    for key, message, signature in vectors:
        assert ed25519.is_valid(bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature))


def test_keys_and_signatures_survive_their_spelling() -> None:
    assert decode_key(encode_key(PUBLIC)) == PUBLIC
    assert decode_signature(encode_signature(signed())) == signed()


@pytest.mark.parametrize("text", ["", "x", "=", b64encode(b"1" * 31).decode(), b64encode(bytes(32)).decode()])
def test_invalid_keys_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_key(text)
