"""Whatever the contract lets through can be stored and comes back as it was: no valid command stops a partition."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.conformance.stores import MOMENT, Hand
from tests.properties import json_texts, python_values

from waypost.errors import InvalidCommandError
from waypost.model.index import Entry, SeenCommand, Session
from waypost.model.limits import canonical_metadata, check_json, checked_metadata, text_problem
from waypost.model.retention import RetentionPolicy
from waypost_worker.partition.ports import Changes, RejectedRow, Row
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.store import PostgresStore

many = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

_numbers = itertools.count(1)  # of checkpoints: examples share a database
_offsets = itertools.count()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Any]:
    made = await open_pool(database)
    yield made
    await made.close()


@pytest.fixture
async def hand(pool: Any) -> Hand:
    store = PostgresStore(pool, 0)
    return Hand(store, await store.acquire(1))


# Texts as the contract allows them, among them the ones that Postgres or an index might mind.


def texts(longest: int) -> st.SearchStrategy[str]:
    allowed = st.characters(exclude_categories=["Cc", "Cs"])
    odd = st.sampled_from(
        [
            "😀" * longest,
            "\ufffe\uffff",
            "\u2028",
            "a\u0300",
            " ",
            "'",
            "\\",
            '"',
            "${",
            "%s",
            "\ud7ff",
            "\U0010ffff",
        ]
    )
    found = st.one_of(st.text(allowed, min_size=1, max_size=20), odd)
    return found.map(lambda text: text[:longest]).filter(lambda text: text_problem(text, longest) is None)


session_ids, names, command_ids, foreign_ids = texts(200), texts(200), texts(64), texts(256)
moments = st.one_of(
    st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
    st.sampled_from([-62_135_596_800_000_000, 253_402_300_799_999_999, 0, 946_684_800_000_000 - 1]),
)
policies = st.one_of(
    st.none(),
    st.builds(
        RetentionPolicy,
        st.integers(2, 10_000),
        st.integers(1, 10_000),
        st.integers(0, 10_000),
        st.one_of(st.none(), st.integers(1, 2**63)),
    ),
)


def accepted(raw: bytes) -> bytes | None:
    """Metadata as the worker stores it, or None where it refuses it."""
    try:
        return checked_metadata(check_json(raw), "metadata")
    except InvalidCommandError:
        return None


_raw_metadata = st.one_of(
    python_values.metadata.map(orjson.dumps),
    json_texts.objects.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: b'{"n":%b}' % repr(number).encode()),
    st.tuples(st.integers(0, 10**20), st.integers(-330, 308)).map(lambda found: b'{"n":%de%d}' % found),
)
metadata = _raw_metadata.map(accepted).filter(lambda canonical: canonical is not None)
data = st.one_of(
    python_values.data.map(orjson.dumps),
    json_texts.objects.map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    entry = Entry(
        next(_numbers),
        draw(names),
        draw(moments),
        draw(moments),
        draw(st.integers(0, 2**63 - 1)),
        draw(st.one_of(st.none(), command_ids)),
        draw(st.one_of(st.none(), foreign_ids)),
        draw(st.booleans()),
    )
    return Row(draw(session_ids), entry, draw(data), draw(metadata))


def batch_of(rows: list[Row], policy: RetentionPolicy | None, recorded_at: int) -> Changes:
    changes = Changes(puts={(row.session_id, row.entry.number): row for row in rows})
    for row in rows:
        own = [other.entry for other in rows if other.session_id == row.session_id]
        changes.sessions[row.session_id] = (Session.restore(row.session_id, 0, policy, own, []), recorded_at)
    return changes


async def come_back(
    hand: Hand, rows: list[Row], policy: RetentionPolicy | None = None, at: int = MOMENT
) -> None:
    changes = batch_of(rows, policy, at)
    await hand.commit(changes)
    contents = await hand.store.contents(changes.puts)
    assert contents == {key: (row.data, row.metadata) for key, row in changes.puts.items()}
    loaded = await hand.store.load(list(changes.sessions))
    for session_id, (session, _) in changes.sessions.items():
        found = loaded[session_id]
        assert found.policy == policy
        # Earlier examples may have left checkpoints in a session of the same name.
        assert [one for one in found.live() if one.number in session.entries] == session.live()


@many
@given(st.lists(rows(), min_size=1, max_size=12), policies, moments)
async def test_every_checkpoint_comes_back(
    hand: Hand, rows: list[Row], policy: RetentionPolicy | None, recorded_at: int
) -> None:
    await come_back(hand, rows, policy, recorded_at)


@settings(many, max_examples=300)
@given(st.lists(metadata, min_size=1, max_size=30))
@example(
    [accepted(b'{"n":[-0.0,0.0,1e16,1e22,-1e16,1.8446744073709552e19,1.8446744073709550e19,5e-324,1e-7]}')]
)
@example(
    [accepted(b'{"n":[9007199254740993.0,1.7976931348623157e308,-9223372036854775808,18446744073709551615]}')]
)
@example([accepted(b'{"\\u00e9":1,"e\\u0301":2,"":3,"a":{"b":1,"a":2},"\\ud83d\\ude00":"\\u007f\\u0001"}')])
async def test_metadata_comes_back_byte_for_byte(hand: Hand, listed: list[bytes]) -> None:
    await come_back(hand, [Row("m", Entry(next(_numbers), "n", 0, 0, 0), b"{}", one) for one in listed])


async def test_the_longest_ids_fit_into_every_index(hand: Hand) -> None:
    # Random characters, which compression does not shorten.
    longest = "".join(chr(0x10000 + (at * 7919) % 0xFFFFF) for at in range(256))
    entry = Entry(next(_numbers), longest[:200], 0, 0, 0, longest[:64], longest)
    await come_back(hand, [Row(longest[:200], entry, b"{}", b"{}")])


async def test_the_largest_contents_come_back(hand: Hand) -> None:
    large = orjson.dumps({"x": "\0" * 150_000})
    deep = b'{"a":' + b"[" * 99 + b"]" * 99 + b"}"
    wide = checked_metadata({f"key-{at}": at / 3 for at in range(500)}, "metadata")
    contents = [(large, wide), (b"{}", b"{}"), (deep, canonical_metadata(orjson.loads(deep)))]
    await come_back(hand, [Row("l", Entry(next(_numbers), "n", 0, 0, 0), *content) for content in contents])


@many
@given(
    st.lists(
        st.tuples(st.integers(0, 2**63 - 2), command_ids, st.one_of(st.none(), st.integers(1, 10**18))),
        max_size=20,
        unique_by=lambda one: one[0],
    ),
    session_ids,
)
async def test_every_remembered_command_comes_back(
    hand: Hand, remembered: list[tuple[int, str, int | None]], session_id: str
) -> None:
    session = Session.restore(session_id, 0, None, [], [SeenCommand(*one) for one in remembered])
    touched = {session_id: (session, MOMENT)}
    await hand.commit(Changes(sessions=touched, forgotten={session_id: 2**63 - 1}))  # of earlier examples
    await hand.commit(Changes(sessions=touched, remembered=[(session_id, one) for one in session.recent]))
    assert (await hand.store.load([session_id]))[session_id].recent == session.recent


# What was refused is kept, however odd it is: that is why it was refused.

_bytes = st.one_of(st.none(), st.binary(max_size=30))
_sizes = st.one_of(st.none(), st.integers(0, 2**31))
_any_text = st.text(st.characters(exclude_categories=[]), max_size=30)


@many
@given(
    st.builds(
        RejectedRow,
        st.builds(lambda: next(_offsets)),
        st.one_of(st.none(), session_ids),
        st.one_of(st.none(), command_ids),
        st.just("invalid-body"),
        _any_text,
        _bytes,
        _bytes,
        st.lists(
            st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), _bytes), max_size=4
        ),
        moments,
        _sizes,
        _sizes,
    )
)
async def test_every_rejected_command_is_kept(pool: Any, hand: Hand, row: RejectedRow) -> None:
    await hand.commit(Changes(rejected=[row]))
    kept = await pool.fetchrow('select * from waypost.rejected_commands where "offset" = $1', row.offset)
    assert (kept["session_id"], kept["command_id"], kept["code"]) == (
        row.session_id,
        row.command_id,
        row.code,
    )
    assert (kept["key"], kept["value"], kept["recorded_at"]) == (row.key, row.value, row.recorded_at)
    assert (kept["value_bytes"], kept["headers_bytes"]) == (row.value_bytes, row.headers_bytes)
    headers = [
        (name, None if text is None else text.encode("latin-1"))
        for name, text in orjson.loads(kept["headers"])
    ]
    assert headers == list(row.headers)
    plain = "".join("?" if 0xD800 <= ord(c) < 0xE000 else "\ufffd" if c == "\0" else c for c in row.message)
    assert kept["message"] == plain
