"""The manifest of a snapshot, and what of a place may go."""

import hashlib
from dataclasses import asdict

import orjson
import pytest

from waypost_worker.snapshots.catalog import Listed, superfluous
from waypost_worker.snapshots.manifest import TABLES, AppliedMigration, File, Manifest, Part
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
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
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
    fields["parts"][0]["files"][0].update(change)
    fields = {"format": "waypost-snapshot", "version": 1, **fields}
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    checksum = hashlib.sha256(orjson.dumps(fields, option=option)).hexdigest()
    with pytest.raises(SnapshotError, match="can't be read"):
        Manifest.from_json(orjson.dumps({**fields, "sha256": checksum}), NAME)


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
