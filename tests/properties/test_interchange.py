"""Lines of checkpoints, cut into import commands: nothing is lost, added, moved or too large."""

from itertools import groupby, pairwise
from unittest import mock

import orjson
from hypothesis import given
from hypothesis import strategies as st

from waypost.model.checkpoint import Checkpoint
from waypost.model.commands import Import
from waypost.model.times import from_micros
from waypost.wire.decode import parse_body
from waypost.wire.event_types import EventType
from waypost_worker.operations import interchange
from waypost_worker.operations.interchange import line_of, parts_of_lines

PART_BYTES = 400
PART_COUNT = 3

SESSIONS = st.sampled_from(["a", "b", "a:1", "ü"])
DATA = st.dictionaries(st.text(max_size=3), st.text(max_size=120) | st.integers(-9, 9), max_size=3)
CHECKPOINTS = st.builds(
    lambda session, number, micros, data, indent: Checkpoint(
        f"{session}:{number}",
        "n",
        from_micros(micros),
        from_micros(micros),
        orjson.dumps(data, option=orjson.OPT_INDENT_2 if indent else 0),
    ),
    SESSIONS,
    st.integers(1, 99),
    st.integers(0, 2**50),
    DATA,
    st.booleans(),
)


@given(st.lists(CHECKPOINTS, max_size=12), st.lists(st.integers(0, 12), max_size=3))
def test_parts_carry_what_the_lines_hold_in_their_order(
    checkpoints: list[Checkpoint], blanks: list[int]
) -> None:
    lines = [line_of(checkpoint) for checkpoint in checkpoints]
    for place in blanks:
        lines.insert(place, b"  ")
    with (
        mock.patch.object(interchange, "IMPORT_PART_BYTES", PART_BYTES),
        mock.patch.object(interchange, "IMPORT_PART_COUNT", PART_COUNT),
    ):
        parts = list(parts_of_lines([line + b"\n" for line in lines], None, "skip"))
    carried = []
    for part in parts:
        action = parse_body(EventType.IMPORT, part.body)
        assert isinstance(action, Import)
        assert len(action.checkpoints) <= PART_COUNT
        assert len(action.checkpoints) == 1 or len(part.body) < PART_BYTES + 100
        carried += [(part.session, item.id, item.data) for item in action.checkpoints]
    assert carried == [(c.session_id, c.id, c.raw_data.replace(b"\n", b" ")) for c in checkpoints]
    # No more commands than there have to be: two neighbours of one session don't fit into one.
    runs = [list(group) for _, group in groupby(parts, lambda part: part.session)]
    for run in runs:
        for one, other in pairwise(run):
            first = orjson.loads(other.body)["checkpoints"][0]
            full = len(orjson.loads(one.body)["checkpoints"]) == PART_COUNT
            assert full or len(one.body) + len(orjson.dumps(first)) > PART_BYTES - 100
