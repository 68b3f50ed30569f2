"""A preview says what would leave and why."""

import pytest
from tests.unit.life import Life

from waypost.errors import InvalidCommandError
from waypost.model.preview import preview_configure, preview_default
from waypost.model.retention import RetentionPolicy

SECOND = 1_000_000


def life() -> Life:
    made = Life()
    made.creates("a", "b", at=10)
    made.creates(*"abcabca", at=20)
    made.pins(2)
    return made


def test_each_removal_has_its_reason() -> None:
    changes = (("max_checkpoints", 5), ("compress_after", 6), ("keep_recent", 2), ("max_age", 5 * SECOND))
    preview = preview_configure(life().session, changes, RetentionPolicy(), now=20 * SECOND)
    assert preview.policy == RetentionPolicy(5, 6, 2, 5 * SECOND)
    assert preview.checkpoints == 9
    assert preview.removals == ([1], [3, 4], [5])
    assert preview.removed == [1, 3, 4, 5]


def test_a_default_is_previewed_as_if_the_session_had_it() -> None:
    preview = preview_default(life().session, RetentionPolicy(100, 3, 1), now=20 * SECOND)
    assert preview.removals == ([], [3, 4, 5], [])


def test_what_the_worker_would_reject_is_an_error() -> None:
    made = life()
    made.pins(3, 4)
    with pytest.raises(InvalidCommandError, match="max_checkpoints must be at least 5") as raised:
        preview_configure(made.session, (("max_checkpoints", 4),), RetentionPolicy(), now=0)
    assert raised.value.code == "pin-limit"
