"""What the console's pages show, without a server."""

import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.model.checkpoint import Checkpoint
from waypost.model.index import Entry
from waypost_worker.console import text, urls
from waypost_worker.console.pages.health import Health, partition_health
from waypost_worker.console.pages.search import Search, active_since, parse_search
from waypost_worker.console.pages.sessions import difference
from waypost_worker.console.pages.timeline import timeline
from waypost_worker.console.pages.tree import (
    DEEPEST,
    LONGEST_TEXT,
    MOST_NODES,
    Node,
    UnknownPathError,
    at,
    tree,
)
from waypost_worker.console.render import environment

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
IDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


# Addresses.


@given(IDS | st.sampled_from([".", "..", "~", "~.", "~..", "%2F", "a/b", "a%2Fb", "?", "#"]))
def test_any_session_id_is_one_segment_and_comes_back(session_id: str) -> None:
    path = urlsplit(urls.checkpoint(session_id, 7)).path
    assert path.isascii()
    _, word, segment, number = path.split("/")
    assert (word, number) == ("sessions", "7")
    assert segment not in (".", "..")
    assert urls.from_segment(segment) == session_id


def test_invalid_text_does_not_name_a_session() -> None:
    assert urls.from_segment("%ff") is None


def test_empty_parameters_are_left_out() -> None:
    assert urls.with_query("/", q="a b", after=None, active="") == "/?q=a+b"


# Words.


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 KB"),
        (921_600, "922 KB"),
        (999_600, "1 MB"),
    ],
)
def test_sizes(count: int, said: str) -> None:
    assert text.size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.5, "500 ms"), (12, "12 s"), (90, "1.5 min"), (7200, "2.0 h"), (864_000, "10 d")]
)
def test_spans(seconds: float, said: str) -> None:
    assert text.span(seconds) == said


def test_a_time_ahead_of_this_clock_is_now() -> None:
    assert text.ago(NOW + timedelta(seconds=5), NOW) == "now"
    assert text.ago(NOW - timedelta(seconds=90), NOW) == "1.5 min ago"


# Search.


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("", Search()),
        ("trip-to", Search("trip-to")),
        ("name:plan_made", Search("", "plan_made")),
        ("model:small cost:0.03 ok:true", Search("", None, {"model": "small", "cost": 0.03, "ok": True})),
        ('langgraph/a:b name:"two words"', Search("langgraph/a:b", "two words")),
        ('size:"3"', Search("", None, {"size": "3"})),
        ("id:a:b", Search("a:b")),
        ("data:{", Search("", None, {"data": "{"})),
        ("list:[1]", Search("", None, {"list": "[1]"})),
    ],
)
def test_search_understands_prefixes_names_and_metadata(typed: str, found: Search) -> None:
    assert parse_search(typed) == found


def test_activity_is_counted_back_from_now() -> None:
    assert active_since("1d", NOW) == NOW - timedelta(days=1)
    assert active_since("", NOW) is None
    assert active_since("nonsense", NOW) is None


# Trees.


def nodes(node: Node) -> list[Node]:
    return [node, *(found for child in node.children for found in nodes(child))]


def test_a_tree_shows_each_value_at_its_path() -> None:
    shown = {node.path: node.kind or node.text for node in nodes(tree({"a/b": [1, {"~": None}], "c": "x"}))}
    assert shown == {
        "": "{2}",
        "/a~1b": "[2]",
        "/a~1b/0": "1",
        "/a~1b/1": "{1}",
        "/a~1b/1/~0": "null",
        "/c": '"x"',
    }


def test_a_tree_is_bounded_and_its_rest_can_be_reached() -> None:
    wide = tree({"v": list(range(10_000))})
    assert len(nodes(wide)) <= MOST_NODES + 1
    assert wide.children[0].more.endswith(" more")
    value: Any = "end"
    for _ in range(100):
        value = [value]
    at_end = nodes(tree(value))[-1]
    assert at_end.more == "deeper"
    assert at_end.path == "/0" * DEEPEST
    assert nodes(tree(at(value, "/0" * 96)))[-1].text == '"end"'


def test_a_long_text_is_cut_and_says_how_long_it_is() -> None:
    node = tree("x" * 900_000)
    assert len(node.text) == LONGEST_TEXT + 1
    assert node.more == "900,000 characters"


def test_a_key_may_be_as_long_as_the_data() -> None:
    root = tree({"k" * 800_000: [[[n] for n in range(3)] for _ in range(500)]})
    assert sum(len(node.key) + len(node.path or "") for node in nodes(root)) < 400_000
    assert root.children[0].path is None
    assert root.children[0].more.endswith(" more")


@pytest.mark.parametrize("path", ["x", "/x", "/v/2", "/v/-1", "/v/²", "/v/0/0", "/v/99999999999"])
def test_a_path_that_leads_nowhere(path: str) -> None:
    with pytest.raises(UnknownPathError):
        at({"v": [1, 2]}, path)


# Timelines.


def entry(number: int, name: str, seconds: float, pinned: bool = False) -> Entry:
    return Entry(number, name, round(seconds * 1e6), 0, number, pinned=pinned)


def test_each_name_has_a_lane_and_removed_numbers_have_one_too() -> None:
    line = timeline([entry(1, "plan", 0), entry(5, "found", 10), entry(6, "plan", 20, pinned=True)])
    assert line is not None
    assert [lane.name for lane in line.lanes] == ["plan", "found", "removed"]
    assert [dot.number for dot in line.lanes[0].dots] == [1, 6]
    assert line.lanes[0].dots[1].pinned
    assert line.lanes[2].dots[0].said == "3 removed, #2 to #4"
    assert line.lanes[0].dots[0].x == line.left
    assert line.lanes[0].dots[1].x == line.right


def test_idle_time_is_drawn_short() -> None:
    busy = [entry(n, "n", n) for n in range(1, 11)]
    line = timeline([*busy, *(entry(n, "n", 7200 + n) for n in range(11, 21))])
    assert line is not None
    assert [idle.said for idle in line.idle] == ["2.0 h idle"]
    xs = [dot.x for dot in line.lanes[0].dots]
    assert xs == sorted(xs)
    assert min(later - earlier for earlier, later in itertools.pairwise(xs)) > 15


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-(10**9), 10**9)), min_size=1, max_size=40))
def test_a_picture_stays_within_its_frame_whatever_clocks_say(taken: list[tuple[str, int]]) -> None:
    line = timeline([entry(n, name, at) for n, (name, at) in enumerate(taken, 1)])
    assert line is not None
    places = [dot.x for lane in line.lanes for dot in lane.dots] + [idle.x for idle in line.idle]
    assert all(line.left <= x <= line.right for x in places)
    assert sum(dot.count for lane in line.lanes if not lane.gone for dot in lane.dots) == len(taken)


def test_ten_thousand_checkpoints_of_many_names_are_a_small_picture() -> None:
    line = timeline([entry(n, f"name-{n % 300}", n * 1.5) for n in range(1, 10_001)])
    assert line is not None
    assert len(line.lanes) == 12
    assert line.lanes[-1].name == "289 other names"
    assert sum(len(lane.dots) for lane in line.lanes) < 1500


def test_an_empty_session_has_no_picture() -> None:
    assert timeline([]) is None


# Escaping.


@pytest.mark.parametrize(
    "hostile",
    [
        "</script><script>alert(1)</script>",
        "a\u202eb\u2066c",
        "\x1b[31m",
        "\x00",
        '" onload="x',
        "\u2800\ufe00",
    ],
)
def test_everything_that_a_template_prints_is_visible_and_not_markup(hostile: str) -> None:
    page = environment().from_string('<p title="{{ it }}">{{ it }}</p>').render(it=hostile)
    inner = page.removeprefix('<p title="').removesuffix("</p>")
    assert "<" not in inner.replace('">', "", 1)
    assert page.isprintable()
    assert inner.count('"') == 1


def test_every_template_loads() -> None:
    names = environment().list_templates()
    assert "session.html" in names
    for name in names:
        environment().get_template(name)


def test_no_template_switches_escaping_off() -> None:
    loader = environment().loader
    assert loader is not None
    for name in environment().list_templates():
        source, _, _ = loader.get_source(environment(), name)
        assert "|safe" not in source.replace(" ", "")
        assert "autoescape" not in source
        assert " style=" not in source
        assert re.search(r"<[^>]*\son\w+=", source) is None


# Health.


def test_the_oldest_of_the_waiting_commands_is_the_deployments() -> None:
    rows = [
        {
            "partition": one,
            "next_offset": 5,
            "epoch": 1,
            "emitted": 4,
            "outbox_bytes": 0,
            "blocked_offset": None,
        }
        for one in range(3)
    ]
    recorded = {0: 97_000, 2: 40_000}
    found = partition_health(rows, {0: 9, 1: 5, 2: 6}, 3)
    health = Health(
        tuple(one.waiting_since(recorded.get(one.partition), 100.0) for one in found), 1, {}, (), 1
    )
    assert [one.waiting_seconds for one in health.partitions] == [3.0, None, 60.0]
    assert (health.lag, health.waiting_seconds) == (5, 60.0)
    # By a broker's clock that is ahead, it was recorded in the future.
    assert found[0].waiting_since(101_000, 100.0).waiting_seconds == 0


# Differences.


def checkpoint(number: int, data: dict[str, Any]) -> Checkpoint:
    return Checkpoint(f"s:{number}", "n", NOW, NOW, orjson.dumps(data), b"{}")


def test_a_changed_text_is_shown_by_its_lines_and_other_values_whole() -> None:
    text = "first\n<b>second</b>\nthird"
    before = checkpoint(1, {"draft": text, "step": 1})
    compared = difference(before, checkpoint(2, {"draft": text.replace("second", "2nd"), "step": 2}), 10)
    shown = str(environment().get_template("macros.html").module.difference(compared))  # type: ignore[attr-defined]
    assert re.findall(r'<span class="(\w+)">. ([^<]*)</span>', shown) == [
        ("soft", "first"),
        ("del", "&lt;b&gt;second&lt;/b&gt;"),
        ("add", "&lt;b&gt;2nd&lt;/b&gt;"),
        ("soft", "third"),
    ]
    assert ' was</td><td>/data/step</td><td class="v">1</td></tr>' in shown


def test_texts_too_long_to_compare_by_line_are_shown_whole() -> None:
    texts = {f"t{number}": "a\n" * 30_000 for number in range(4)}
    compared = difference(
        checkpoint(1, texts), checkpoint(2, {key: text + "b" for key, text in texts.items()}), 10
    )
    assert [bool(lines) for lines in compared.lines] == [True, True, False, False]
