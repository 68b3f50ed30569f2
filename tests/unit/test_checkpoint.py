"""A checkpoint as people and programs see it."""

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest

from waypost.errors import InvalidCommandError
from waypost.model.checkpoint import Checkpoint, checkpoint_id, export_json, own_number, summarise

AT = datetime(2026, 11, 24, 8, 24, 59, 500_000, tzinfo=UTC)
PLAIN: dict[str, Any] = {
    "id": "a:b:7",
    "name": "started",
    "timestamp": "2026-11-24T08:24:59.500000Z",
    "data": {"step": 1},
    "metadata": {"a": 1, "b": 2},
}


def checkpoint(number: int = 7, name: str = "started", at: datetime = AT) -> Checkpoint:
    return Checkpoint(f"a:b:{number}", name, at, at, b'{"step":1}', b'{"a":1,"b":2}')


def test_the_id_is_session_and_number() -> None:
    assert checkpoint_id("a:b", 7) == "a:b:7"
    assert (checkpoint().session_id, checkpoint().number) == ("a:b", 7)


@pytest.mark.parametrize(
    ("identifier", "number"),
    [
        ("s:1", 1),
        ("s:10", 10),
        (f"s:{10**15 + 1}", 10**15 + 1),
        ("s:0", None),
        ("s:01", None),
        ("s:+1", None),
        ("s:-1", None),
        ("s: 1", None),
        ("s:\N{SUPERSCRIPT ONE}", None),
        ("s:\N{ARABIC-INDIC DIGIT ONE}", None),
        (f"s:{10**18 - 1}", 10**18 - 1),
        (f"s:{10**18}", None),
        ("s:" + "9" * 10_000, None),
        ("s:", None),
        ("s", None),
        ("t:1", None),
        ("s:t:1", None),
    ],
)
def test_an_id_is_of_a_session_only_in_the_form_that_the_session_gives(
    identifier: str, number: int | None
) -> None:
    assert own_number("s", identifier) == number


def test_to_dict_gives_the_five_keys_of_the_interchange_format() -> None:
    assert checkpoint().to_dict() == PLAIN
    assert list(checkpoint().to_dict()) == ["id", "name", "timestamp", "data", "metadata"]


def test_from_dict_reads_it_back() -> None:
    again = Checkpoint.from_dict(PLAIN)
    assert again == checkpoint()
    assert again.recorded_at == again.timestamp


def test_metadata_is_optional() -> None:
    without = {key: value for key, value in PLAIN.items() if key != "metadata"}
    assert Checkpoint.from_dict(without).metadata == {}


def test_timestamps_are_written_in_utc_whatever_the_zone() -> None:
    tokyo = AT.astimezone(timezone(timedelta(hours=9)))
    assert checkpoint(at=tokyo).to_dict()["timestamp"] == PLAIN["timestamp"]
    assert Checkpoint.from_dict({**PLAIN, "timestamp": "2026-11-24T17:24:59.5+09:00"}) == checkpoint()


@pytest.mark.parametrize(("wrong", "kind"), [([PLAIN], "list"), ("{}", "str"), (None, "NoneType")])
def test_what_is_not_a_dict_is_rejected(wrong: Any, kind: str) -> None:
    with pytest.raises(InvalidCommandError, match=f"^a checkpoint is a dict, not a {kind}$") as caught:
        Checkpoint.from_dict(wrong)
    assert caught.value.code == "invalid-body"


@pytest.mark.parametrize("key", ["id", "name", "timestamp", "data"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(InvalidCommandError, match=f"^a checkpoint needs the key '{key}'$") as caught:
        Checkpoint.from_dict({k: v for k, v in PLAIN.items() if k != key})
    assert caught.value.code == "invalid-body"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 7}, "id must be a string"),
        ({"name": None}, "name must be a string"),
        ({"timestamp": AT}, "timestamp must be a string"),
        ({"timestamp": "2026-11-24T08:24:59"}, "timestamp: .*RFC 3339"),
        ({"timestamp": "0000-01-01T00:00:00Z"}, "timestamp: .*years 1 to 9999"),
        ({"data": []}, "data must be a dict, not list"),
        ({"data": {"a": {1}}}, "data.a: a set is not JSON"),
        ({"metadata": None}, "metadata must be a dict, not NoneType"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCommandError, match=message) as caught:
        Checkpoint.from_dict({**PLAIN, **change})
    assert caught.value.code == "invalid-body"


@pytest.mark.parametrize(
    ("raw_data", "pinned", "shown"),
    [
        (b'{"step":1}', False, ': {"step":1}'),
        (b'{"step":1}', True, ', pinned: {"step":1}'),
        (b'{"a":"' + b"x" * 52 + b'"}', False, ': {"a":"' + "x" * 52 + '"}'),
        (b'{"a":"' + b"x" * 53 + b'"}', False, ': {"a":"' + "x" * 53 + '"… (61 bytes)'),
        # The cut leaves out the character that it would split.
        (b'{"text":"' + "ü€".encode() * 20 + b'"}', False, ': {"text":"' + "ü€" * 10 + "… (111 bytes)"),
    ],
)
def test_its_repr_shows_the_first_60_bytes_of_its_data(raw_data: bytes, pinned: bool, shown: str) -> None:
    assert repr(Checkpoint("s:1", "done", AT, AT, raw_data, pinned=pinned)) == (
        f"<Checkpoint 's:1' 'done' of 2026-11-24T08:24:59.500000+00:00{shown}>"
    )


def test_it_cannot_be_changed_through_what_it_returns() -> None:
    original = checkpoint()
    original.data["step"] = 2
    original.metadata.clear()
    original.to_dict()["data"].clear()
    assert original.to_dict() == PLAIN
    with pytest.raises(FrozenInstanceError):
        original.name = "other"  # type: ignore[misc]


def test_an_export_is_a_list_indented_by_two() -> None:
    text = export_json([checkpoint(1), checkpoint(2)])
    assert orjson.loads(text) == [{**PLAIN, "id": "a:b:1"}, {**PLAIN, "id": "a:b:2"}]
    assert text.startswith('[\n  {\n    "id": "a:b:1",\n    "name": "started",\n')
    assert export_json([]) == "[]"


class TestSummary:
    def test_of_nothing(self) -> None:
        assert summarise([]) == {
            "total_count": 0,
            "unique_names": 0,
            "names": {},
            "first_checkpoint": None,
            "last_checkpoint": None,
            "duration_seconds": 0.0,
        }

    def test_of_many(self) -> None:
        first, second, third = (
            checkpoint(1, "a"),
            checkpoint(2, "b", AT + timedelta(seconds=1.5)),
            checkpoint(3, "a", AT + timedelta(seconds=1)),
        )
        assert summarise([first, second, third]) == {
            "total_count": 3,
            "unique_names": 2,
            "names": {"a": 2, "b": 1},
            "first_checkpoint": first.to_dict(),
            "last_checkpoint": third.to_dict(),
            "duration_seconds": 1.5,
        }

    def test_a_clock_that_goes_backwards_gives_no_negative_duration(self) -> None:
        assert (
            summarise([checkpoint(1), checkpoint(2, at=AT - timedelta(seconds=2))])["duration_seconds"] == 2.0
        )
