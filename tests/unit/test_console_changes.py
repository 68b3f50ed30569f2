"""From a form's fields to a command, and how its preview reads."""

from datetime import UTC, datetime

import pytest

from waypost.errors import InvalidCommandError
from waypost.model.commands import Clear, Configure, Delete, Pin, Rollback
from waypost.model.index import Entry
from waypost.model.retention import RetentionPolicy
from waypost_worker.console.pages.changes import change_of, preview_page, ranges
from waypost_worker.operations.stored_session import StoredSession

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def session(*numbers: int, pinned: int | None = None) -> StoredSession:
    entries = tuple(Entry(n, f"name-{n}", n, n, n * 10, pinned=n == pinned) for n in numbers)
    return StoredSession(
        "s",
        1,
        max(numbers),
        RetentionPolicy(),
        False,
        LONG_AGO,
        LONG_AGO,
        900,
        90,
        entries,
        (2,) * len(numbers),
    )


@pytest.mark.parametrize(
    ("kind", "fields", "action"),
    [
        ("rollback", {"checkpoint": "3"}, Rollback("s:3", False)),
        ("rollback", {"checkpoint": "3", "discard_later": "1"}, Rollback("s:3", True)),
        ("pin", {"checkpoint": "3"}, Pin("s:3")),
        ("delete", {"checkpoint": "3", "form_token": "x", "position": "1"}, Delete("s:3")),
        ("clear", {}, Clear()),
        (
            "policy",
            {"max_checkpoints": "7", "max_age": ""},
            Configure((("max_checkpoints", 7), ("max_age", None))),
        ),
        ("policy", {"max_age": "1.5"}, Configure((("max_age", 1_500_000),))),
    ],
)
def test_a_form_becomes_a_command(kind: str, fields: dict[str, str], action: object) -> None:
    assert change_of(kind, "s", fields).action == action


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("rollback", {}),
        ("rollback", {"checkpoint": "-1"}),
        ("pin", {"checkpoint": "²"}),
        ("pin", {"checkpoint": "9" * 400}),
        ("policy", {}),
        ("policy", {"max_checkpoints": "x"}),
        ("policy", {"max_checkpoints": "1"}),
        ("policy", {"max_age": "nan"}),
        ("policy", {"max_age": "-1"}),
        ("policy", {"keep_recent": "9" * 400}),
    ],
)
def test_an_invalid_command_is_an_error_before_anything_is_sent(kind: str, fields: dict[str, str]) -> None:
    with pytest.raises(InvalidCommandError):
        change_of(kind, "s", fields)


def test_a_preview_names_what_goes_and_what_of_it_is_pinned() -> None:
    stored = session(1, 2, 3, 5, 6, pinned=5)
    change = change_of("rollback", "s", {"checkpoint": "2", "discard_later": "1"})
    page = preview_page(stored, change, stored.preview(change.action, 0), moved=False)
    assert page.summary == "Removes 3 checkpoints (3, 5 to 6), 1 of them pinned. 2 are kept."
    assert [(one.number, one.pinned) for one in page.removals] == [(3, False), (5, True), (6, False)]
    assert page.position == 90
    assert page.fields == {"checkpoint": "2", "discard_later": "1"}


def test_a_preview_of_what_would_be_refused_says_why() -> None:
    stored = session(1, 2)
    change = change_of("delete", "s", {"checkpoint": "9"})
    page = preview_page(stored, change, stored.preview(change.action, 0), moved=False)
    assert page.rejected is not None
    assert page.rejected.startswith("unknown-checkpoint: 's' holds no checkpoint 's:9'")


def test_a_new_policy_is_shown_next_to_the_old_one() -> None:
    stored = session(*range(1, 8))
    change = change_of("policy", "s", {"max_checkpoints": "3", "max_age": "7200"})
    page = preview_page(stored, change, stored.preview(change.action, 7), moved=True)
    assert page.policy == "at most 3, compressed above 50 to the last 20, none older than 2.0 h"
    assert page.removed == 4
    assert page.moved


@pytest.mark.parametrize(
    ("numbers", "said"),
    [((), ""), ((4,), "4"), ((1, 2, 3, 7, 9, 10), "1 to 3, 7, 9 to 10"), (tuple(range(0, 40, 2)), None)],
)
def test_numbers_in_words(numbers: tuple[int, ...], said: str | None) -> None:
    assert ranges(numbers) == (said if said is not None else "0, 2, 4, 6, 8, 10, 12, 14 and 12 more ranges")
