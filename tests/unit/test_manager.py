"""The in-memory manager: every call of the semantics' tables, and that nobody can reach inside it."""

import logging
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest

from waypost.errors import InvalidCommandError, NaiveDatetimeError, UnknownCheckpointError
from waypost.manager import CheckpointManager
from waypost.model.checkpoint import Checkpoint
from waypost.model.retention import RetentionPolicy
from waypost.wire.json_default import json_default

T0 = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def manager() -> CheckpointManager:
    """Three checkpoints: a at 0 s, b at 10 s, a at 5 s by the agent's clock."""
    manager = CheckpointManager("s")
    manager.create("a", {"n": 1}, {"kind": "first"}, timestamp=at(0))
    manager.create("b", {"n": 2}, timestamp=at(10))
    manager.create("a", {"n": 3}, timestamp=at(5))
    return manager


def numbers(checkpoints: list[Checkpoint]) -> list[int]:
    return [checkpoint.number for checkpoint in checkpoints]


class TestReads:
    def test_get(self, manager: CheckpointManager) -> None:
        found = manager.get("s:2")
        assert found is not None
        assert (found.id, found.name, found.data, found.metadata) == ("s:2", "b", {"n": 2}, {})
        assert (found.timestamp, found.pinned, found.imported_id) == (at(10), False, None)
        assert manager.get("s:9") is None
        assert manager.get("t:2") is None

    def test_get_by_name_newest_first(self, manager: CheckpointManager) -> None:
        assert numbers(manager.get_by_name("a")) == [3, 1]
        assert manager.get_by_name("c") == []

    def test_get_latest_is_the_highest_number_not_the_latest_timestamp(
        self, manager: CheckpointManager
    ) -> None:
        latest, of_b = manager.get_latest(), manager.get_latest("b")
        assert latest is not None
        assert of_b is not None
        assert (latest.number, of_b.number) == (3, 2)
        assert manager.get_latest("c") is None
        assert CheckpointManager("s").get_latest() is None

    def test_get_all_oldest_first_and_iteration_and_len(self, manager: CheckpointManager) -> None:
        assert numbers(manager.get_all()) == numbers(list(manager)) == [1, 2, 3]
        assert len(manager) == 3

    def test_get_since_is_strictly_after(self, manager: CheckpointManager) -> None:
        assert numbers(manager.get_since(at(0))) == [2, 3]
        assert numbers(manager.get_since(at(5))) == [2]
        assert numbers(manager.get_since(at(-1))) == [1, 2, 3]

    def test_get_between_includes_both_ends(self, manager: CheckpointManager) -> None:
        assert numbers(manager.get_between(at(0), at(5))) == [1, 3]
        assert numbers(manager.get_between(at(10), at(10))) == [2]
        assert manager.get_between(at(10), at(0)) == []

    def test_the_zone_of_an_argument_does_not_matter(self, manager: CheckpointManager) -> None:
        tokyo = timezone(timedelta(hours=9))
        assert numbers(manager.get_since(at(5).astimezone(tokyo))) == [2]

    def test_times_beyond_the_calendar_may_be_asked_for(self, manager: CheckpointManager) -> None:
        earliest = datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))
        latest = datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))
        assert numbers(manager.get_between(earliest, latest)) == [1, 2, 3]

    def test_rollback_to_returns_data_and_changes_nothing(self, manager: CheckpointManager) -> None:
        assert manager.rollback_to("s:1") == {"n": 1}
        assert manager.rollback_to("s:9") is None
        assert len(manager) == 3

    def test_get_summary(self, manager: CheckpointManager) -> None:
        summary = manager.get_summary()
        assert (summary["total_count"], summary["unique_names"], summary["names"]) == (3, 2, {"a": 2, "b": 1})
        assert summary["first_checkpoint"] == manager.get_all()[0].to_dict()
        assert summary["last_checkpoint"] == manager.get_all()[2].to_dict()
        assert summary["duration_seconds"] == 10.0

    def test_export(self, manager: CheckpointManager) -> None:
        assert orjson.loads(manager.export()) == [checkpoint.to_dict() for checkpoint in manager]
        assert manager.export().startswith('[\n  {\n    "id": "s:1"')

    def test_naive_datetimes_are_rejected(self, manager: CheckpointManager) -> None:
        naive = datetime(2026, 11, 24)
        for call in (
            lambda: manager.get_since(naive),
            lambda: manager.get_between(naive, T0),
            lambda: manager.get_between(T0, naive),
            lambda: manager.create("a", {}, timestamp=naive),
        ):
            with pytest.raises(NaiveDatetimeError, match="no time zone"):
                call()
        assert len(manager) == 3


class TestCommands:
    def test_create_returns_the_checkpoint_and_takes_now_where_no_timestamp_is_given(self) -> None:
        before = datetime.now(UTC)
        created = CheckpointManager("s").create("a", {})
        assert before <= created.timestamp == created.recorded_at <= datetime.now(UTC)
        assert created.timestamp.tzinfo is UTC

    def test_clear_returns_how_many_there_were(self, manager: CheckpointManager) -> None:
        manager.pin("s:1")
        assert manager.clear() == 3
        assert manager.clear() == len(manager) == 0
        assert manager.create("a", {}).id == "s:4"

    def test_pin_and_unpin(self, manager: CheckpointManager) -> None:
        manager.pin("s:2")
        assert [checkpoint.pinned for checkpoint in manager] == [False, True, False]
        manager.unpin("s:2")
        assert [checkpoint.pinned for checkpoint in manager] == [False, False, False]

    def test_delete(self, manager: CheckpointManager) -> None:
        manager.delete("s:3")
        assert numbers(manager.get_all()) == [1, 2]
        assert manager.create("a", {}).number == 4

    def test_rollback_returns_the_checkpoint(self, manager: CheckpointManager) -> None:
        assert manager.rollback("s:2").data == {"n": 2}
        assert len(manager) == 3
        assert manager.rollback("s:1", discard_later=True).number == 1
        assert numbers(manager.get_all()) == [1]

    def test_unknown_checkpoints(self, manager: CheckpointManager) -> None:
        for call in (manager.pin, manager.unpin, manager.delete, manager.rollback):
            with pytest.raises(UnknownCheckpointError, match="'s' holds no checkpoint 's:9'"):
                call("s:9")

    def test_the_pin_limit(self) -> None:
        manager = CheckpointManager("s", max_checkpoints=2)
        manager.create("a", {})
        with pytest.raises(InvalidCommandError, match="unpin one, or raise max_checkpoints") as caught:
            manager.pin("s:1")
        assert caught.value.code == "pin-limit"

    def test_configure_returns_the_policy_and_applies_it(self, manager: CheckpointManager) -> None:
        assert manager.policy == RetentionPolicy()
        assert manager.configure(max_checkpoints=2, max_age=1.5) == RetentionPolicy(
            max_checkpoints=2, max_age=1_500_000
        )
        assert manager.policy.max_age == 1_500_000
        assert numbers(manager.get_all()) == [1, 3]
        with pytest.raises(InvalidCommandError, match="max_checkpoints"):
            manager.configure(max_checkpoints=1)

    def test_retention_through_the_constructor(self) -> None:
        manager = CheckpointManager("s", max_checkpoints=4, compress_after=3, keep_recent=1)
        for name in "aaab":
            manager.create(name, {})
        assert numbers(manager.get_all()) == [1, 3, 4]
        with pytest.raises(InvalidCommandError, match="max_checkpoints: 1 is not between 2 and 10000"):
            CheckpointManager("s", max_checkpoints=1)

    def test_what_is_gone_holds_no_memory(self) -> None:
        manager = CheckpointManager("s", max_checkpoints=2)
        for _ in range(50):
            manager.create("a", {})
        manager.import_checkpoints(manager.export(), "replace")
        manager.import_checkpoints(manager.export().replace('"s:', '"old:'))
        assert len(manager._stored) == len(manager) == 2

    def test_bad_arguments_change_nothing(self, manager: CheckpointManager) -> None:
        wrong: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
            ("", {}, None),
            ("a" * 201, {}, None),
            ("a", {"x": {1}}, None),
            ("a", {}, {"x": "\0"}),
        ]
        for name, data, metadata in wrong:
            with pytest.raises(InvalidCommandError):
                manager.create(name, data, metadata)
        assert manager.create("a", {}).number == 4

    def test_a_timestamp_that_utc_cannot_write_changes_nothing(self, manager: CheckpointManager) -> None:
        before = manager.export()
        for wrong in (
            datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
            datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
        ):
            with pytest.raises(InvalidCommandError, match="years 1 to 9999"):
                manager.create("a", {}, timestamp=wrong)
        assert manager.export() == before

    @pytest.mark.parametrize("session_id", ["", "s" * 201, "a\nb"])
    def test_the_session_id_is_checked(self, session_id: str) -> None:
        with pytest.raises(InvalidCommandError, match="the session id"):
            CheckpointManager(session_id)


class TestImport:
    def test_it_counts_what_was_imported_or_replaced(self, manager: CheckpointManager) -> None:
        exported = manager.export()
        assert CheckpointManager("s").import_checkpoints(exported) == 3
        assert CheckpointManager("s").import_checkpoints(exported.encode()) == 3
        assert manager.import_checkpoints(exported) == 0
        assert manager.import_checkpoints(exported, "replace") == 3

    def test_reject_imports_nothing(self, manager: CheckpointManager) -> None:
        exported = manager.export()
        manager.delete("s:2")
        with pytest.raises(InvalidCommandError, match="nothing was imported") as caught:
            manager.import_checkpoints(exported, "reject")
        assert caught.value.code == "conflict"
        assert numbers(manager.get_all()) == [1, 3]

    def test_skip_fills_the_hole_and_replace_takes_the_new_data(self, manager: CheckpointManager) -> None:
        exported = manager.export().replace('"n": ', '"m": ')
        manager.delete("s:2")
        manager.import_checkpoints(exported)
        assert [checkpoint.data for checkpoint in manager] == [{"n": 1}, {"m": 2}, {"n": 3}]
        manager.import_checkpoints(exported, "replace")
        assert [checkpoint.data for checkpoint in manager] == [{"m": 1}, {"m": 2}, {"m": 3}]

    def test_a_foreign_checkpoint_is_found_under_its_old_id(self, manager: CheckpointManager) -> None:
        other = CheckpointManager("t")
        other.import_checkpoints(manager.export())
        found = other.get("s:2")
        assert found is not None
        assert (found.id, found.imported_id, found.data) == ("t:2", "s:2", {"n": 2})
        assert other.rollback("s:2", discard_later=True).id == "t:2"
        assert len(other) == 2

    @pytest.mark.parametrize(
        "text", ["", "{}", "[1]", "null", "[{}]", "[", '[],"x":1', '["\ud800"]', "\ud800"]
    )
    def test_an_invalid_export_is_refused_and_changes_nothing(
        self, manager: CheckpointManager, text: str
    ) -> None:
        before = manager.export()
        with pytest.raises(InvalidCommandError) as caught:
            manager.import_checkpoints(text)
        assert caught.value.code == "invalid-body"
        assert manager.export() == before

    def test_an_unknown_way_to_settle_conflicts_is_refused(self, manager: CheckpointManager) -> None:
        with pytest.raises(InvalidCommandError, match="on_conflict"):
            manager.import_checkpoints("[]", "merge")  # type: ignore[arg-type]


class TestCallbacks:
    def test_it_is_called_with_each_created_checkpoint(self) -> None:
        manager = CheckpointManager("s")
        seen: list[Checkpoint] = []
        manager.on_checkpoint(seen.append)
        created = [manager.create("a", {"n": n}) for n in range(3)]
        manager.pin("s:1")
        manager.delete("s:2")
        manager.rollback("s:1")
        manager.clear()
        assert seen == created

    def test_imported_checkpoints_are_created_replaced_and_skipped_ones_are_not(
        self, manager: CheckpointManager
    ) -> None:
        exported = manager.export()
        manager.delete("s:2")
        seen: list[Checkpoint] = []
        manager.on_checkpoint(seen.append)
        manager.import_checkpoints(exported, "replace")
        assert numbers(seen) == [2]

    def test_an_item_replaced_within_its_import_is_announced_once_in_its_last_form(self) -> None:
        manager = CheckpointManager("s")
        seen: list[Checkpoint] = []
        manager.on_checkpoint(seen.append)
        item = {"id": "s:1", "name": "a", "timestamp": "2026-11-24T08:00:00Z", "data": {"n": 1}}
        text = orjson.dumps([item, {**item, "name": "b", "data": {"n": 2}}]).decode()
        assert manager.import_checkpoints(text, "replace") == 2
        assert seen == manager.get_all()
        assert (seen[0].name, seen[0].data) == ("b", {"n": 2})

    def test_one_that_fails_stops_nobody_and_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        manager = CheckpointManager("s")
        seen: list[Checkpoint] = []

        def fails(checkpoint: Checkpoint) -> None:
            raise RuntimeError("no")

        manager.on_checkpoint(fails)
        manager.on_checkpoint(seen.append)
        with caplog.at_level(logging.ERROR, logger="waypost"):
            created = manager.create("a", {})
        assert seen == manager.get_all() == [created]
        assert [record.getMessage() for record in caplog.records] == [
            "a checkpoint callback failed for s:1; the checkpoint is kept"
        ]
        assert caplog.records[0].exc_info is not None

    def test_it_can_be_ended_once_for_each_registration(self) -> None:
        manager = CheckpointManager("s")
        seen: list[Checkpoint] = []
        stop = manager.on_checkpoint(seen.append)
        manager.on_checkpoint(seen.append)
        manager.create("a", {})
        assert len(seen) == 2
        stop()
        stop()
        manager.create("a", {})
        assert len(seen) == 3

    def test_it_may_use_the_manager(self) -> None:
        manager = CheckpointManager("s")

        def follows(checkpoint: Checkpoint) -> None:
            if checkpoint.name == "a":
                manager.create("b", {})

        manager.on_checkpoint(follows)
        manager.create("a", {})
        assert [checkpoint.name for checkpoint in manager] == ["a", "b"]


class TestIsolation:
    def test_changing_what_was_passed_in_changes_nothing(self) -> None:
        manager = CheckpointManager("s")
        data: dict[str, Any] = {"list": [1]}
        metadata: dict[str, Any] = {"tags": ["x"]}
        created = manager.create("a", data, metadata)
        data["list"].append(2)
        data["new"] = 1
        metadata["tags"].clear()
        for checkpoint in (created, manager.get_all()[0]):
            assert checkpoint.data == {"list": [1]}
            assert checkpoint.metadata == {"tags": ["x"]}

    def test_changing_what_came_out_changes_nothing(self) -> None:
        manager = CheckpointManager("s")
        created = manager.create("a", {"list": [1]}, {"tags": ["x"]})
        before = manager.export()
        returned = [created, *manager, *manager.get_by_name("a"), *manager.get_since(at(-1))]
        for checkpoint in returned:
            checkpoint.data["list"].append(2)
            checkpoint.metadata.clear()
            checkpoint.to_dict()["data"].clear()
        rolled_back = manager.rollback_to("s:1")
        assert rolled_back is not None
        rolled_back.clear()
        manager.get_all().clear()
        manager.get_summary()["names"].clear()
        first = manager.get_summary()["first_checkpoint"]
        assert first is not None
        first["data"].clear()
        assert manager.export() == before

    def test_a_checkpoint_shows_the_moment_it_was_read(self) -> None:
        manager = CheckpointManager("s")
        created = manager.create("a", {})
        manager.pin("s:1")
        manager.import_checkpoints(manager.export().replace('"a"', '"b"'), "replace")
        assert (created.pinned, created.name) == (False, "a")


def test_values_that_json_lacks_are_refused_unless_a_function_converts_them() -> None:
    data: dict[str, Any] = {"at": at(0), "of": {T0.date()}}
    with pytest.raises(InvalidCommandError, match=r"data\.at: a datetime is not JSON.* default="):
        CheckpointManager("s").create("n", data)
    manager = CheckpointManager("s", default=json_default)
    made = manager.create("n", data, {"day": T0.date()})
    assert made.data == {"at": "2026-11-24T08:00:00+00:00", "of": ["2026-11-24"]}
    assert made.metadata == {"day": "2026-11-24"}
    with pytest.raises(ValueError, match="default must be a plain function"):
        CheckpointManager("s", default="str")  # type: ignore[arg-type]
