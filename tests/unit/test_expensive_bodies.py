"""No body costs a worker much for its size, whatever it holds; the page lists the most expensive known ones."""

import tracemalloc
from types import SimpleNamespace

import pytest
from tests.support.expensive_bodies import AT_ONCE, LARGE_BODIES, WHOLE, expensive_bodies, large_body
from tests.support.expensive_bodies_page import PAGE, Cost, measure

from waypost.wire.envelope import STRUCTURED, glimpse
from waypost.wire.event_types import COMMAND_TYPES, EventType

# In loops of a million additions: 50 ms are 1.8 on the machine of the page. Measured are at most 1.4. An import of
# 345,000 empty items took 144 before its items were counted first.
ON_THE_LOOP = 4.0
IN_A_THREAD = 12.0
MEMORY = 50  # times the body
# A compressed batch can hold a body of 16 MB, and such a body at a few kilobytes. Parsed, it would take 640 MB.
LARGE = 2 * WHOLE
MEMORY_OF_LARGE = 5


@pytest.fixture(scope="module", params=[WHOLE, AT_ONCE], ids=["1 MiB", "256 KiB"])
def costs(request: pytest.FixtureRequest) -> list[Cost]:
    return measure(expensive_bodies(request.param), turns=2)


def test_every_body_is_as_large_as_its_topic_or_its_limit_allows() -> None:
    for size in (WHOLE, AT_ONCE):
        for case in expensive_bodies(size):
            large = min(size, 900 * 1024) if case.kind == EventType.CREATE else size
            assert 0.6 * large < len(case.body) <= size, case.what


def test_no_body_holds_up_the_event_loop_for_long(costs: list[Cost]) -> None:
    for cost in costs:
        in_a_thread = len(cost.case.body) > AT_ONCE
        assert cost.decoding < (IN_A_THREAD if in_a_thread else ON_THE_LOOP), cost.case.what
        assert cost.deciding < ON_THE_LOOP, cost.case.what
        if cost.case.kind != EventType.IMPORT:
            assert cost.decoding < ON_THE_LOOP, cost.case.what


def test_no_body_takes_more_than_fifty_times_its_size_in_memory(costs: list[Cost]) -> None:
    for cost in costs:
        assert cost.memory < MEMORY, cost.case.what


def test_the_page_has_every_body_with_its_answer(costs: list[Cost]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert {cost.case.kind for cost in costs} == set(COMMAND_TYPES)
    for cost in costs:
        kind = cost.case.kind.removeprefix("waypost.")
        assert page.count(f"| `{kind}` | {cost.case.what} | `") == 2
        assert f"| `{kind}` | {cost.case.what} | `{cost.outcome}` |" in page


def test_a_body_that_only_a_compressed_batch_holds_is_never_parsed_whole() -> None:
    costs = measure([large_body(number, LARGE) for number in range(len(LARGE_BODIES))], turns=1)
    assert {cost.outcome for cost in costs} <= {"too-large", "invalid-body", "unknown-checkpoint"}
    assert [cost.case.what for cost in costs if cost.memory > MEMORY_OF_LARGE] == []


def test_a_structured_event_is_never_parsed_whole_to_find_its_id() -> None:
    objects = b"[" + b",".join([b'{"":0}'] * (LARGE // 7)) + b"]"
    event = b'{"specversion":"1.0","source":"s","type":"t","id":' + objects + b"}"
    record = SimpleNamespace(key=b"s", value=event, headers=[("content-type", STRUCTURED)])
    tracemalloc.start()
    assert glimpse(record) == (None, "s")  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEMORY_OF_LARGE * len(event)
