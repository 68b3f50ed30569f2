"""Where two texts first differ, in words."""

import pytest

from waypost_worker.recovery.json_diff import first_difference


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (b'{"a": {"b": [1, 2]}}', b'{"a": {"b": [1, 3]}}', "at a.b[1], Postgres has 2 and the log 3"),
        (b'{"a": 1}', b'{"a": 1, "b": null}', "at b, Postgres has nothing and the log null"),
        (b'{"a": [1, 2]}', b'{"a": [1]}', "at a[1], Postgres has 2 and the log nothing"),
        (b'{"a": 1}', b'{"a": true}', "at a, Postgres has 1 and the log true"),
        (b"[]", b"{}", "at the top, Postgres has [] and the log {}"),
        (b"{}", b"{}", "they are the same"),
    ],
)
def test_a_difference_in_json_is_named_by_its_path(left: bytes, right: bytes, said: str) -> None:
    assert first_difference(left, right, "Postgres", "the log") == said


def test_invalid_json_is_reported_with_the_byte() -> None:
    said = first_difference(b'{"a": 1\xff', b'{"a": 2\xff', "Postgres", "the log")
    assert said.startswith("from byte 6 on, Postgres (8 bytes) has ")


def test_a_long_value_is_cut() -> None:
    said = first_difference(b'{"a": "%b"}' % (b"x" * 5000), b'{"a": 1}', "Postgres", "the log")
    assert len(said) < 250
