"""Where two texts first differ, in words; and which sessions a sample holds."""

import pytest

from waypost_worker.recovery.json_diff import first_difference
from waypost_worker.recovery.shares import Share, share_of, spread_of


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
def test_a_difference_in_json_is_told_by_its_path(left: bytes, right: bytes, said: str) -> None:
    assert first_difference(left, right, "Postgres", "the log") == said


def test_what_is_no_json_is_told_by_the_byte() -> None:
    said = first_difference(b'{"a": 1\xff', b'{"a": 2\xff', "Postgres", "the log")
    assert said.startswith("from byte 6 on, Postgres (8 bytes) has ")


def test_a_long_value_is_cut() -> None:
    said = first_difference(b'{"a": "%b"}' % (b"x" * 5000), b'{"a": 1}', "Postgres", "the log")
    assert len(said) < 250


def test_a_sample_has_about_its_share_and_is_part_of_a_larger_one() -> None:
    keys = [b"session-%d" % number for number in range(5000)]
    small, large = ({key for key in keys if share_of(part).holds(spread_of(key))} for part in (0.05, 0.5))
    assert 150 < len(small) < 350
    assert 2300 < len(large) < 2700
    assert small < large
    assert share_of(1).whole
    assert all(share_of(1).holds(spread_of(key)) for key in keys)
    assert 150 < sum(share_of(0.05).holds(spread_of(None, offset)) for offset in range(5000)) < 350


def test_shares_that_follow_each_other_leave_nothing_out() -> None:
    shares = [Share().first_half().first_half().first_half()]
    while shares[-1].high < Share().high:
        shares.append(shares[-1].following(Share().high))
    assert len(shares) == 8
    keys = [b"session-%d" % number for number in range(1000)]
    assert all(sum(share.holds(spread_of(key)) for share in shares) == 1 for key in keys)
    assert Share(5, 6).first_half() == Share(5, 6)
    assert Share(0, 3).following(4) == Share(3, 4)
