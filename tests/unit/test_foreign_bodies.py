"""What clients send in place of JSON in UTF-8, or say twice about it: each gets a message of its own."""

import bz2
import gzip
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_record_bounds import BODY, CREATE, Record, event, headers, refused

from waypost.errors import InvalidCommandError
from waypost.wire.decode import parse_body
from waypost.wire.envelope import glimpse, open_envelope
from waypost.wire.plain_json import foreign_form

TEXT = BODY.decode()
SEND_UTF_8 = "Send UTF-8"
UNCOMPRESSED = "Send it as it is, and let the Kafka client compress"
REGISTRY = "as schema registry serializers write it. Use a plain JSON serializer"


def framed(schema_id: int) -> bytes:
    return b"\0" + struct.pack(">I", schema_id) + BODY


@pytest.mark.parametrize(
    ("body", "words"),
    [
        *((framed(one), REGISTRY) for one in (0, 1, 123, 0x7B, 0x7B00, 0x7B7B, 2**31 - 1)),
        (b"\0" + b"\0" * 7 + b"\x7b" + BODY, REGISTRY),  # an id of eight bytes, as Apicurio writes by default
        (gzip.compress(BODY, mtime=0), f"compressed (gzip). {UNCOMPRESSED}"),
        (zlib.compress(BODY, 1), "compressed (zlib)"),
        (zlib.compress(BODY), "compressed (zlib)"),
        (zlib.compress(BODY, 9), "compressed (zlib)"),
        (bytes.fromhex("28b52ffd") + BODY, "compressed (zstd)"),
        (bytes.fromhex("04224d18") + BODY, "compressed (lz4)"),
        (b"\xff\x06\x00\x00sNaPpY" + BODY, "compressed (snappy)"),
        *((TEXT.encode(one), f"UTF-16. {SEND_UTF_8}") for one in ("utf-16", "utf-16-le", "utf-16-be")),
        *((TEXT.encode(one), f"UTF-32. {SEND_UTF_8}") for one in ("utf-32", "utf-32-le", "utf-32-be")),
        (TEXT.encode("utf-8-sig"), "a byte order mark. Leave that out"),
    ],
)
def test_a_body_in_another_form_is_named(body: bytes, words: str) -> None:
    with pytest.raises(InvalidCommandError) as caught:
        parse_body(CREATE.decode(), body)
    assert caught.value.code == "invalid-body"
    assert caught.value.message.startswith("the body is not JSON: it ")
    assert words in caught.value.message


@pytest.mark.parametrize(
    "body", [b"", b"\0", b"\0\0\0\0\0", b"x", b"\x1f", bz2.compress(BODY), b"\xff", b"{"]
)
def test_messages_without_details_say_that_it_is_not_json(body: bytes) -> None:
    assert foreign_form(body) is None


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_json_is_never_taken_for_anything_else(value: dict[str, Any]) -> None:
    assert foreign_form(json.dumps(value).encode()) is None


# Media types.


def typed(content_type: bytes, value: bytes = BODY) -> Record:
    return Record(value=value, headers=[*headers()[:-1], ("content-type", content_type)])


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json;charset=utf-8",
        b"application/json ; charset=UTF-8; x=y",
        b" application/json\t",
    ],
)
def test_media_types_are_compared_without_case_and_parameters(content_type: bytes) -> None:
    assert open_envelope(typed(content_type)).body == BODY
    structured = content_type.replace(b"json", b"cloudevents+json").replace(b"JSON", b"CloudEvents+JSON")
    assert open_envelope(Record(value=event(), headers=[("content-type", structured)])).body == BODY


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"text/json",
        b"application/jsonx",
        b"application/json-seq",
        b"application/json, text/xml",
        b"json",
    ],
)
def test_other_media_types_are_rejected_even_if_they_begin_like_json(content_type: bytes) -> None:
    code, message = refused(typed(content_type))
    assert (code, "is not application/json" in message) == ("invalid-envelope", True)


def test_other_formats_of_events_are_rejected_even_if_they_begin_like_json() -> None:
    for content_type in (b"application/cloudevents+json-seq", b"application/cloudevents+avro"):
        code, message = refused(Record(value=event(), headers=[("content-type", content_type)]))
        assert (code, "is not application/json" in message) == ("invalid-envelope", True)


def test_the_rejection_of_a_batch_of_events_says_to_send_them_one_by_one() -> None:
    for content_type in (
        b"application/cloudevents-batch+json",
        b"application/CloudEvents-Batch+json;charset=utf-8",
    ):
        code, message = refused(Record(value=b"[]", headers=[("content-type", content_type)]))
        assert code == "invalid-envelope"
        assert "send each event in a record of its own" in message


# Headers that stand twice.

ONCE = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type")


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_header_that_contradicts_itself_is_refused_wherever_it_stands(name: str, at: int) -> None:
    doubled = headers()
    doubled.insert(at, (name, b"1.1"))
    code, message = refused(Record(headers=doubled))
    assert code == "invalid-envelope"
    assert message == f"the header {name} appears twice, with different values: send it once"


@pytest.mark.parametrize("name", ONCE)
def test_a_header_that_is_repeated_or_null_contradicts_nothing(name: str) -> None:
    (value,) = (value for one, value in headers() if one == name)
    nothing: Any = None
    for more in ((name, value), (name, nothing)):
        found = open_envelope(Record(headers=[more, *headers(), more]))
        assert found == open_envelope(Record())


def test_other_headers_may_stand_twice() -> None:
    more = [("ce_myextension", b"1"), ("ce_myextension", b"2"), ("x", b"1"), ("x", b"2")]
    assert open_envelope(Record(headers=[*headers(), *more])) == open_envelope(Record())


def test_of_two_ids_neither_is_taken_for_the_commands() -> None:
    assert glimpse(Record(headers=[*headers(), ("ce_id", b"c-2")])) == (None, "s")
    assert glimpse(Record(headers=[*headers(), ("ce_id", b"c-1")])) == ("c-1", "s")
