"""The in-memory manager: what it exports comes back whole."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import python_values

from waypost.manager import CheckpointManager
from waypost.model.checkpoint import Checkpoint

moments = st.datetimes(timezones=st.just(UTC))
created = st.tuples(
    python_values.names, python_values.data, st.one_of(st.none(), python_values.metadata), moments
)


def filled(items: list[Any], keep: list[bool]) -> CheckpointManager:
    """A session under the default policy, with holes where ``keep`` says no."""
    manager = CheckpointManager("run:7")
    for name, data, metadata, timestamp in items:
        manager.create(name, data, metadata, timestamp=timestamp)
    for checkpoint, kept in zip(manager.get_all(), keep, strict=False):
        if not kept:
            manager.delete(checkpoint.id)
    return manager


managers = st.builds(filled, st.lists(created, max_size=6), st.lists(st.booleans(), max_size=6))
examples = settings(deadline=None, max_examples=60)


@examples
@given(managers)
def test_an_export_imported_into_an_empty_session_of_that_name_restores_it(
    manager: CheckpointManager,
) -> None:
    empty = CheckpointManager(manager.session_id)
    assert empty.import_checkpoints(manager.export()) == len(manager)
    assert [one.to_dict() for one in empty] == [one.to_dict() for one in manager]
    assert [one.timestamp for one in empty] == [one.timestamp for one in manager]
    assert [repr(one.data) for one in empty] == [repr(one.data) for one in manager]
    assert empty.export() == manager.export()
    newest = manager.get_latest()
    assert empty.create("next", {}).number == (newest.number if newest else 0) + 1


@settings(deadline=None, max_examples=8)
@given(st.integers(51, 130), st.sampled_from(["abc", "a"]))
def test_a_session_that_was_compressed_is_restored_too(count: int, names: str) -> None:
    manager = CheckpointManager("s")
    for index in range(count):
        manager.create(names[index % len(names)], {"index": index})
    empty = CheckpointManager("s")
    empty.import_checkpoints(manager.export())
    assert empty.export() == manager.export()


@examples
@given(managers)
def test_importing_ones_own_export_again_changes_nothing(manager: CheckpointManager) -> None:
    before = manager.export()
    assert manager.import_checkpoints(before) == 0
    assert manager.export() == before


@examples
@given(managers)
def test_an_import_under_another_name_keeps_order_and_contents_and_is_found_by_its_old_ids(
    manager: CheckpointManager,
) -> None:
    other = CheckpointManager("elsewhere")
    other.create("here already", {})
    other.import_checkpoints(manager.export())
    for number, (old, new) in enumerate(zip(manager, other.get_all()[1:], strict=True), start=2):
        assert new.id == f"elsewhere:{number}"
        assert new.imported_id == old.id
        assert other.get(old.id) == new
        assert {**new.to_dict(), "id": old.id} == old.to_dict()


@examples
@given(managers)
def test_the_interchange_form_reads_back(manager: CheckpointManager) -> None:
    for checkpoint in manager:
        again = Checkpoint.from_dict(checkpoint.to_dict())
        assert again.to_dict() == checkpoint.to_dict()
        assert (again.id, again.name, again.timestamp) == (
            checkpoint.id,
            checkpoint.name,
            checkpoint.timestamp,
        )
        assert (again.raw_data, again.raw_metadata) == (checkpoint.raw_data, checkpoint.raw_metadata)


@examples
@given(managers, moments, moments)
def test_reads_agree_with_a_plain_look_at_all(manager: CheckpointManager, a: datetime, b: datetime) -> None:
    everything = manager.get_all()
    a, b = min(a, b), max(a, b)
    assert list(manager) == everything
    assert len(manager) == len(everything)
    assert manager.get_since(a) == [one for one in everything if one.timestamp > a]
    assert manager.get_between(a, b) == [one for one in everything if a <= one.timestamp <= b]
    assert manager.get_latest() == (everything[-1] if everything else None)
    for checkpoint in everything:
        same_name = [one for one in everything if one.name == checkpoint.name]
        assert manager.get_by_name(checkpoint.name) == same_name[::-1]
        assert manager.get_latest(checkpoint.name) == same_name[-1]
        assert manager.get(checkpoint.id) == checkpoint
        assert manager.rollback_to(checkpoint.id) == checkpoint.data
    summary = manager.get_summary()
    assert summary["total_count"] == len(everything) == sum(summary["names"].values())
    assert summary["unique_names"] == len({one.name for one in everything})
    moments = [one.timestamp for one in everything]
    span = (max(moments) - min(moments)).total_seconds() if moments else 0.0
    assert summary["duration_seconds"] == span >= 0
