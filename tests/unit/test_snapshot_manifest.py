"""The manifest of a snapshot, and what of a place may go."""

import hashlib
from dataclasses import asdict
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost_worker.snapshots.catalog import Listed, superfluous
from waypost_worker.snapshots.manifest import (
    PIECE_BYTES,
    TABLES,
    AppliedMigration,
    File,
    Manifest,
    Part,
    Signing,
)
from waypost_worker.snapshots.storage import SnapshotError

NAME = "20261124T120000000Z-1a2b3c"


def manifest() -> Manifest:
    file = File("partition-00000/sessions-000001.copy.zst", "sessions", 10, 20, "ab" * 32)
    rows = dict.fromkeys(TABLES, 0) | {"sessions": 3}
    return Manifest(
        name=NAME,
        taken_at="2026-11-24T12:00:00+00:00",
        waypost="0.1.0",
        postgres=170_000,
        commands_topic="w.commands",
        results_topic="w.results",
        partitions=2,
        migrations=[AppliedMigration(1, "first", "cd" * 32)],
        columns={table: ["a", "b"] for table in TABLES},
        parts=[Part(0, 7, 2, 6, 9, "ef" * 16, rows, [file]), Part(1, 0, 1, -1, 1, None, rows, [])],
    )


def test_what_is_read_is_what_was_written() -> None:
    assert Manifest.from_json(manifest().to_json(), NAME) == manifest()
    assert (manifest().size, manifest().rows("sessions")) == (10, 6)


def test_a_changed_manifest_is_refused() -> None:
    text = manifest().to_json()
    with pytest.raises(SnapshotError, match="another checksum than when it was written"):
        Manifest.from_json(text.replace(b'"next_offset": 7', b'"next_offset": 8'), NAME)


@pytest.mark.parametrize("cut", [0, 1, 100, -3])
def test_a_truncated_manifest_is_refused(cut: int) -> None:
    with pytest.raises(SnapshotError, match="can't be read"):
        Manifest.from_json(manifest().to_json()[:cut], NAME)


@pytest.mark.parametrize("text", [b"[]", b"null", b"{}", b'{"format": "waypost-snapshot", "version": 1}'])
def test_an_invalid_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(SnapshotError, match="can't be read"):
        Manifest.from_json(text, NAME)


def test_another_version_is_refused_with_what_to_use() -> None:
    fields = orjson.loads(manifest().to_json())
    with pytest.raises(SnapshotError, match=r"version 2; this Waypost reads .* version 1"):
        Manifest.from_json(orjson.dumps({**fields, "version": 2}), NAME)


@pytest.mark.parametrize(
    "change", [{"path": "../../secret"}, {"path": "/etc/passwd"}, {"table": "pg_authid"}, {"sort": "odd"}]
)
def test_a_manifest_does_not_choose_what_is_read(change: dict[str, str]) -> None:
    fields = asdict(manifest())
    del fields["signed"]
    fields["parts"][0]["files"][0].update(change)
    fields = {"format": "waypost-snapshot", "version": 1, **fields}
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    checksum = hashlib.sha256(orjson.dumps(fields, option=option)).hexdigest()
    with pytest.raises(SnapshotError, match="can't be read"):
        Manifest.from_json(orjson.dumps({**fields, "sha256": checksum}), NAME)


def written(fields: dict[str, Any]) -> bytes:
    """A manifest as somebody writes it who knows the format; its checksum fits."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    checksum = hashlib.sha256(orjson.dumps(fields, option=option)).hexdigest()
    return orjson.dumps({**fields, "sha256": checksum})


def plain() -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(manifest().to_json())
    del fields["sha256"]
    return fields


def put(fields: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """``fields`` with another value at a place such as ``parts.0.epoch``."""
    at: Any = fields
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        at = at[step]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return fields


GONE = object()
FILE = "parts.0.files.0"
HOSTILE = [
    ("name", "20261124T120000000Z-ffffff"),
    ("name", "../../../etc"),
    ("name", 7),
    ("name", GONE),
    ("taken_at", "yesterday"),
    ("taken_at", "2026-11-24T12:00:00"),
    ("waypost", "x" * 1_000_000),
    ("commands_topic", None),
    ("partitions", 0),
    ("partitions", 10**15),
    ("partitions", True),
    ("migrations.0.number", 0),
    ("migrations.0.number", -1),
    ("migrations.0.number", 2),
    ("migrations", {}),
    ("columns", {}),
    ("columns.sessions", []),
    ("columns.sessions", ["a", "a"]),
    ("columns.sessions", ['a"; drop table sessions; --']),
    ("columns.sessions", [f"a_{'b' * number}" for number in range(200)]),
    ("columns.pg_authid", ["a"]),
    ("parts.1.partition", 0),
    ("parts.1.partition", 2),
    ("parts.0.next_offset", -1),
    ("parts.0.next_offset", 2**63),
    ("parts.0.next_offset", 1.5),
    ("parts.0.anchor", "xyz"),
    ("parts.0.anchor", "a" * 1_000_000),
    ("parts.0.rows", {"sessions": 1}),
    ("parts.0.rows.sessions", -1),
    (FILE + ".raw_size", 10**15),
    (FILE + ".raw_size", PIECE_BYTES + 1),
    (FILE + ".raw_size", 0),
    (FILE + ".raw_size", -1),
    (FILE + ".raw_size", "20"),
    (FILE + ".size", 10**15),
    (FILE + ".size", 0),
    (FILE + ".sha256", "short"),
    (FILE + ".path", "partition-00000/sessions-000001.copy.zst/../../../../secret"),
    (FILE + ".path", "partition-00001/sessions-000001.copy.zst"),
    (FILE + ".path", "partition-00000/checkpoints-000001.copy.zst"),
    (FILE + ".path", "partition-00000/sessions-000002.copy.zst"),
    (FILE + ".table", "outbox"),
    (FILE, None),
    ("parts", None),
    ("signed", True),
    ("more", 1),
]


@pytest.mark.parametrize(("path", "value"), HOSTILE)
def test_what_waypost_never_writes_is_refused_before_anything_is_read(path: str, value: Any) -> None:
    assert Manifest.from_json(written(plain()), NAME) == manifest()
    with pytest.raises(SnapshotError, match="manifest") as caught:
        Manifest.from_json(written(put(plain(), path, value)), NAME)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def places(value: Any, path: str = "") -> list[str]:
    steps: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        steps = list(value.items())
    elif isinstance(value, list):
        steps = list(enumerate(value))
    return [each for step, child in steps for each in (f"{path}{step}", *places(child, f"{path}{step}."))]


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(places(plain())), st.one_of(JSON, st.just(GONE)))
def test_any_content_of_a_manifest_gives_our_own_error(path: str, value: Any) -> None:
    try:
        read = Manifest.from_json(written(put(plain(), path, value)), NAME)
    except SnapshotError:
        return
    assert read.name == NAME
    assert all(file.raw_size <= PIECE_BYTES for part in read.parts for file in part.files)


KEY, OTHER = Signing(b"k" * 32), Signing(b"o" * 32)


def test_a_signed_manifest_is_read_with_its_key_alone() -> None:
    text = manifest().to_json(KEY)
    assert Manifest.from_json(text, NAME, KEY) == manifest()
    assert Manifest.from_json(text, NAME, KEY).signed
    with pytest.raises(SnapshotError, match="not signed with this key"):
        Manifest.from_json(text, NAME, OTHER)
    assert Manifest.from_json(text, NAME, Signing(OTHER.key, allow_unsigned=True)) == manifest()
    assert Manifest.from_json(text, NAME).signed  # without a key nothing can be said, and `check` says so


def test_with_a_key_an_unsigned_manifest_is_read_only_if_that_is_allowed() -> None:
    text = manifest().to_json()
    with pytest.raises(SnapshotError, match=r"not signed, and a key is set.*--allow-unsigned"):
        Manifest.from_json(text, NAME, KEY)
    found = Manifest.from_json(text, NAME, Signing(KEY.key, allow_unsigned=True))
    assert (found, found.signed) == (manifest(), False)


@pytest.mark.parametrize("signature", [None, 7, "", "ab" * 32, "\u00e9" * 64, ["a"]])
def test_an_invalid_signature_is_refused(signature: Any) -> None:
    fields = orjson.loads(manifest().to_json(KEY))
    with pytest.raises(SnapshotError, match="not signed"):
        Manifest.from_json(orjson.dumps({**fields, "hmac": signature}), NAME, KEY)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([place for place in places(plain()) if not place.endswith("files")]))
def test_no_field_of_a_signed_manifest_can_be_changed(path: str) -> None:
    signature = orjson.loads(manifest().to_json(KEY))["hmac"]
    changed = orjson.loads(written(put(plain(), path, GONE)))
    with pytest.raises(SnapshotError, match=r"not signed with this key|can't be read"):
        Manifest.from_json(orjson.dumps({**changed, "hmac": signature}), NAME, KEY)


def listed(*states: str) -> list[Listed]:
    return [Listed(f"2026112{place}T120000000Z-1a2b3c", state) for place, state in enumerate(states)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "keep", "going"),
    [
        (("complete",) * 3, 2, [0]),
        (("complete",) * 3, 5, []),
        (("incomplete", "complete", "incomplete"), 1, [0]),  # the last one may be under way
        (("unreadable", "complete"), 1, []),
        (("incomplete",), 1, []),
        (("complete", "incomplete", "complete", "complete"), 1, [0, 1, 2]),
        ((), 1, []),
    ],
)
def test_the_newest_complete_ones_stay(states: tuple[str, ...], keep: int, going: list[int]) -> None:
    found = listed(*states)
    assert superfluous(found, keep) == [found[place] for place in going]
