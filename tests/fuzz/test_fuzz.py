"""A short run of ``make fuzz``, with another seed each time; and a worker with a bug, which the verdict must notice."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.bodies import Members, changed, schema_of, valid
from tests.fuzz.commands import SESSIONS, create, joined
from tests.fuzz.inputs import KINDS, RARE, Input, input_of
from tests.fuzz.leg import Tally, culprit, leg, rounds
from tests.fuzz.table import progress, table
from tests.support.hostile_batches import batch

from waypost_worker.devserver import Endpoints, Servers

_OF_EACH_KIND = 5


async def test_a_short_run_finds_nothing(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    seed, tally = time.time_ns() % 10**6, Tally()
    endpoints = Endpoints(servers.endpoints.bootstrap_servers, database)
    inputs = [
        input_of(seed, number, kind)
        for kind in KINDS
        for number in range(1 if kind in RARE else _OF_EACH_KIND)
    ]
    async with leg(endpoints, database, topic_prefix, tmp_path, tally, seed) as worker:
        for together in rounds(inputs):
            problem = await worker.judge(together)
            if problem is not None:
                found = None if worker.is_broken() else await culprit(worker, together)
                assert not worker.is_broken(), (seed, problem, [one.name for one in together])
                assert found is None, (seed, found)
        assert await worker.recovered() is None, seed
    assert tally.tried.keys() >= set(KINDS)
    assert tally.accepted.total() > len(inputs) / 2


async def test_a_verdict_notices_memory_silence_and_failure(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    endpoints = Endpoints(servers.endpoints.bootstrap_servers, database)
    problems = {}
    async with leg(
        endpoints,
        database,
        topic_prefix,
        tmp_path,
        Tally(),
        seed=1,
        program="tests.fuzz.broken_worker",
        patience=15,
    ) as worker:
        for bug in ("none", "silence", "memory", "failure"):
            wrong = create(SESSIONS[0], bug, b"{")
            problems[bug] = await worker.judge([Input("bug", bug, (batch(joined([wrong]), 1),))])
    assert problems["none"] is None
    assert re.fullmatch(r"the ordinary command took [\d.]+ s|a probe was .*", problems["silence"] or "")
    assert re.fullmatch(r"the worker took \d+ MiB", problems["memory"] or "")
    assert re.fullmatch(r"offset \d+ has no answer", problems["failure"] or "")


def test_an_input_is_the_same_whenever_it_is_made() -> None:
    for kind in KINDS:
        assert input_of(3, 5, kind) == input_of(3, 5, kind)
        assert input_of(3, 5, kind).kind == kind
    assert input_of(3, 5) == input_of(3, 5)
    assert len({input_of(3, number).batches for number in range(200)}) > 190


def test_a_change_of_a_body_changes_one_place() -> None:
    schema = schema_of("waypost.session.import")
    copied = 0
    for seed in range(200):
        chance = Random(seed)
        tree, what = changed(chance, valid(chance, schema, SESSIONS[0], schema), 100_000)
        copied += what.endswith("times itself")
        places = [id(one) for one in lists(tree)]
        assert len(places) == len(set(places)), (seed, what)
    assert copied > 5


def lists(tree: Any) -> Iterator[list[Any]]:
    """Yield all arrays and objects of a body."""
    if isinstance(tree, list):
        yield tree
        for one in tree:
            yield from lists(one[1] if isinstance(tree, Members) else one)


def test_the_table_fits_a_terminal() -> None:
    tally = Tally()
    for kind in (*KINDS, "corpus", "nothing"):
        tally.tried[kind] = tally.accepted[kind] = 123_456
        tally.commands[kind] = tally.rejected[kind] = 1_234_567
        tally.slower(kind, 123.456)
    lines = table(tally).splitlines()
    assert max(map(len, [*lines, progress(12_345, tally, 12)])) <= 80
    assert [kind for kind in KINDS if not any(line.startswith(f"{kind} ") for line in lines)] == []


def test_heavy_inputs_are_sent_alone() -> None:
    light, heavy = Input("k", "light", (b"x",)), Input("k", "heavy", (b"x",), heavy=True)
    assert [len(one) for one in rounds([light, light, heavy, light, heavy, heavy])] == [2, 1, 1, 1, 1]
    assert [len(one) for one in rounds([light] * 50)] == [40, 10]
