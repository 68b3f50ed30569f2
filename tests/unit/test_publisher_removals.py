"""The log of what retention removed: once for each session, loud only once."""

import logging

import pytest

from waypost.publisher import removals
from waypost.publisher.removals import RemovalLog

CREATED, REMOVED = "waypost.checkpoint.created", {"removed": ["s:2", "s:3"]}


def levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records]


def test_the_first_removal_of_each_session_is_logged_and_the_first_of_all_as_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "waypost")
    log = RemovalLog()
    for session in ("s", "s", "t", "s", "t"):
        log.note(session, CREATED, REMOVED)
    assert levels(caplog) == [logging.WARNING, logging.INFO]
    first = caplog.records[0].getMessage()
    assert "removed 2 checkpoint(s) of session 's'" in first
    assert "keeps 100, and above 50 only the latest of each name between the first and the last 20" in first


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CREATED, {"removed": []}),
        ("waypost.session.cleared", REMOVED),
        ("waypost.session.expired", REMOVED),
        ("waypost.session.configured", REMOVED),
        ("waypost.session.rolled_back", REMOVED),
        ("waypost.command.rejected", {}),
    ],
)
def test_nothing_is_logged_if_nothing_left_or_the_agent_asked_for_it(
    kind: str, body: dict[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "waypost")
    RemovalLog().note("s", kind, body)
    assert levels(caplog) == []


def test_a_bounded_number_of_sessions_is_remembered(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "waypost")
    monkeypatch.setattr(removals, "_SESSIONS", 2)
    log = RemovalLog()
    for session in ("a", "b", "c", "a", "c"):
        log.note(session, CREATED, REMOVED)
    assert len(levels(caplog)) == 4
