"""Pages of listings: the new names, and everything that the lists and fields of 0.1 could do."""

import operator
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from waypost import SessionInfo, SessionPage

AT = datetime(2026, 11, 24, tzinfo=UTC)
A, B = (SessionInfo(name, 0, 3, 2, None, AT, AT) for name in ("a", "b"))
PAGE = SessionPage([A, B], "b")


def test_a_page_of_sessions_is_a_sequence() -> None:
    assert list(PAGE) == [A, B]
    assert (len(PAGE), PAGE[0], PAGE[-1], PAGE[1:]) == (2, A, B, [B])
    assert (A in PAGE, PAGE.index(B), list(reversed(PAGE))) == (True, 1, [B, A])
    assert not SessionPage([], None)


def test_a_page_equals_its_like_and_the_list_that_it_holds() -> None:
    assert PAGE == [A, B]
    assert [A, B] == PAGE
    assert SessionPage([A, B], "b") == PAGE
    assert SessionPage([A, B], None) != PAGE
    assert PAGE != (A, B)


@pytest.mark.parametrize(
    ("use", "found"),
    [
        (lambda page: operator.add(page, [A]), [A, B, A]),
        (lambda page: page.copy(), [A, B]),
        (lambda page: (page.reverse(), page.sessions)[1], [B, A]),
        (lambda page: page.pop(), B),
        (lambda page: (page.append(A), len(page))[1], 3),
    ],
)
def test_what_else_a_list_could_do_works_with_a_warning(use: Callable[[Any], Any], found: Any) -> None:
    with pytest.warns(
        DeprecationWarning, match=r"^SessionPage\.\w+ is deprecated, .* Use SessionPage\.sessions"
    ):
        assert use(SessionPage([A, B], "b")) == found


def test_a_list_is_extended_by_a_page_in_place() -> None:
    found = same = [A]
    found += SessionPage([B], None)
    assert same == [A, B]


def test_other_names_are_not_attributes_of_a_page() -> None:
    with pytest.raises(AttributeError, match="'SessionPage' object has no attribute 'total'"):
        _ = PAGE.total


def test_old_fields_of_a_session_have_their_values() -> None:
    with pytest.warns(DeprecationWarning, match=r"SessionInfo\.counter .* Use last_number"):
        assert A.counter == A.last_number == 3
    with pytest.warns(DeprecationWarning, match=r"SessionInfo\.checkpoints .* Use checkpoint_count"):
        assert A.checkpoints == A.checkpoint_count == 2
