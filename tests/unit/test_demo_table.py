"""The demo's table: its numbers add up and say what they are."""

import json
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest
from tests.support.svg import SVG, overlapping_texts
from tests.tools.demo.picture import KEPT, PICTURE, draw
from tests.tools.demo.table import explained, removed_by_retention

from waypost.wire.event_types import EventType

FOUND: dict[str, Any] = {
    "commands": 5167,
    "applied": 4310,
    "rejected": 690,
    "duplicates": 167,
    "lost": 0,
    "doubled": 0,
    "rows_differing": 0,
    "checkpoints": 587,
    "checkpoints_ever": 4012,
    "removed_by_retention": 3000,
    "commands_per_second": 242.1,
    "latency_ms": {"p50": 27.6, "p99": 101.5, "p50_with_the_kill": 25.4, "max_with_the_kill": 2857.3},
    "meant_to_be_refused": 205,
}


def test_each_number_is_explained() -> None:
    rows = {what: (count, meaning) for what, count, meaning in explained(FOUND)}
    assert rows["rejected"] == (
        "690",
        "205 were broken on purpose; 485 named a checkpoint that was gone or never there",
    )
    assert rows["checkpoints kept"] == (
        "587 of 4,012",
        "retention removed 3,000; deletes, clears and rollbacks removed 425",
    )
    assert all(meaning for _, meaning in rows.values())


def result(kind: str, **body: Any) -> Any:
    return SimpleNamespace(headers=[("ce_type", kind.encode())], value=orjson.dumps(body))


def test_retention_is_what_results_of_other_commands_list() -> None:
    results = {
        0: [
            result(EventType.ACQUIRED, owner="w"),
            result(EventType.CREATED, session_id="s", removed=["s:1", "s:2"]),
            result(EventType.CLEARED, session_id="s", removed=["s:3"]),
        ],
        1: [result(EventType.IMPORTED, session_id="t", removed=[], removed_ranges=[[4, 6]])],
    }
    assert removed_by_retention(results) == 5


def test_the_picture_shows_each_number_and_what_it_means() -> None:
    root = ElementTree.fromstring(draw({**FOUND, "results_differing": 0}))
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    for what, count, meaning in explained(FOUND):
        assert {what, count} <= set(texts)
        assert meaning in " ".join(texts)
    assert texts[-1] == "Nothing lost, nothing doubled."


@pytest.mark.parametrize("wrong", ["lost", "doubled", "rows_differing", "results_differing"])
def test_the_picture_says_if_something_is_wrong(wrong: str) -> None:
    assert "The books do not balance." in draw({**FOUND, "results_differing": 0, wrong: 1})


def test_the_picture_in_docs_is_that_of_the_figures_next_to_it() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(json.loads(KEPT.read_text(encoding="utf-8")))


def test_the_texts_of_the_picture_fit_and_do_not_overlap() -> None:
    slow = {**FOUND["latency_ms"], "p50": 1727.7, "p99": 14918.8}
    root = ElementTree.fromstring(draw({**FOUND, "results_differing": 0, "latency_ms": slow}))
    assert overlapping_texts(root) == []
