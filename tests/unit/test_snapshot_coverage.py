"""What is told of log, snapshots, results and outbox that no longer overlap."""

from dataclasses import replace

import pytest

from waypost_worker.snapshots.coverage import Coverage, Latest, findings

FINE = Coverage(
    0, 100, 10, 480, position=500, results_position=480, owed=490, snapshot=300, snapshot_results=290
)
DAY = 86_400.0
LATEST = Latest("snap", DAY)


def told(
    *reaches: Coverage,
    retention: float | None = 30 * DAY,
    latest: Latest | None = LATEST,
    place: str | None = "there",
) -> list[tuple[str, str]]:
    return [(each.level, each.message) for each in findings(reaches, retention, latest, place)]


def test_a_whole_log_that_is_kept_needs_no_snapshot() -> None:
    ((level, message),) = told(replace(FINE, log_start=0), retention=None, latest=None, place=None)
    assert (level, "complete" in message) == ("ok", True)


def test_a_snapshot_that_the_log_reaches_back_to_is_fine() -> None:
    assert told(FINE, replace(FINE, partition=1, log_start=300)) == [
        ("ok", "snap, 24 hours old, and the log overlap")
    ]


@pytest.mark.parametrize(
    ("reach", "level", "words"),
    [
        (replace(FINE, position=99, owed=None, snapshot=150), "error", "before they were applied"),
        (replace(FINE, owed=99), "error", "not emitted yet"),
        (replace(FINE, results_position=9), "error", "before they were compared"),
        (replace(FINE, snapshot=99), "error", "begins after the newest snapshot (snap) ends"),
        (replace(FINE, snapshot=None), "error", "begins after the newest snapshot"),
        (replace(FINE, snapshot_results=9), "warning", "begins after the results position of snap"),
    ],
)
def test_each_gap_is_reported_with_its_partition(reach: Coverage, level: str, words: str) -> None:
    found = told(replace(FINE, partition=0), replace(reach, partition=3))
    assert found[0][0] == level
    assert "partition 3: " in found[0][1]
    assert words in found[0][1]


def test_results_emitted_behind_the_stored_position_are_not_pending() -> None:
    assert [level for level, _ in told(replace(FINE, owed=99, results_end=481))] == ["ok"]


@pytest.mark.parametrize(
    "change", [{"position": 100}, {"owed": 100}, {"results_position": 10}, {"snapshot": 100}]
)
def test_the_first_record_that_is_left_is_enough(change: dict[str, int]) -> None:
    assert [level for level, _ in told(replace(FINE, **change))] == ["ok"]  # type: ignore[arg-type]


def test_a_log_that_will_be_cut_asks_for_snapshots_in_time() -> None:
    whole = replace(FINE, log_start=0)
    ((level, message),) = told(whole, place=None)
    assert (level, message) == (
        "warning",
        "the log is trimmed after 30 days, and no place for snapshots is set",
    )
    assert told(FINE, place=None)[0] == (
        "warning",
        "the log has already been trimmed, and no place for snapshots is set",
    )
    assert told(whole, latest=None) == [("warning", "there is no complete snapshot")]
    assert told(FINE, latest=None) == [
        ("error", "there is no complete snapshot: if Postgres is lost, so is its state")
    ]
    ((level, message),) = told(FINE, latest=Latest("snap", 16 * DAY))
    assert (level, message) == (
        "warning",
        "the newest snapshot is 16 days old, and the log is trimmed after 30 days: the two will soon no longer overlap",
    )


def test_many_partitions_are_counted() -> None:
    bad = [replace(FINE, partition=number, snapshot=1) for number in range(12)]
    assert told(*bad)[0][1].startswith("partitions 0, 1, 2, 3, 4, 5, 6, 7 and 4 more: ")
