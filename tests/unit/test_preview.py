"""A preview says what would leave and why."""

from tests.unit.life import Life

from waypost.model.commands import Configure, Create, Delete, Import, ImportItem, Rollback
from waypost.model.preview import preview, preview_policy
from waypost.model.retention import Removals, RetentionPolicy

SECOND = 1_000_000


def life() -> Life:
    made = Life()
    made.creates("a", "b", at=10)
    made.creates(*"abcabca", at=20)
    made.pins(2)
    return made


def test_each_removal_has_its_reason() -> None:
    changes = (("max_checkpoints", 5), ("compress_after", 6), ("keep_recent", 2), ("max_age", 5 * SECOND))
    foreseen = preview(life().session, Configure(changes), RetentionPolicy(), now=20 * SECOND)
    assert foreseen.policy == RetentionPolicy(5, 6, 2, 5 * SECOND)
    assert (foreseen.checkpoints, foreseen.kept) == (9, 5)
    assert foreseen.reasons == ([1], [3, 4], [5])
    assert foreseen.removed == (1, 3, 4, 5)


def test_a_default_is_previewed_as_if_the_session_had_it() -> None:
    foreseen = preview_policy(life().session, RetentionPolicy(100, 3, 1), now=20 * SECOND)
    assert foreseen.reasons == Removals([], [3, 4, 5], [])


def test_a_deleted_checkpoint_is_among_the_removed() -> None:
    foreseen = preview(life().session, Delete("s:4"), RetentionPolicy(), now=20 * SECOND)
    assert (foreseen.removed, foreseen.kept) == ((4,), 8)


def test_a_discarding_rollback_names_what_is_later() -> None:
    foreseen = preview(
        life().session, Rollback("s:6", discard_later=True), RetentionPolicy(), now=20 * SECOND
    )
    assert (foreseen.removed, foreseen.kept) == ((7, 8, 9), 6)


def test_what_a_command_adds_is_kept_and_not_removed() -> None:
    full = RetentionPolicy(max_checkpoints=9)
    created = preview(life().session, Create("d", b"{}"), full, now=20 * SECOND)
    assert (created.checkpoints, created.kept, created.removed) == (9, 9, (3,))
    items = tuple(ImportItem(f"other:{number}", "d", 0, b"{}", b"{}") for number in range(3))
    imported = preview(life().session, Import(items, "skip"), RetentionPolicy(), now=20 * SECOND)
    assert (imported.kept, imported.removed) == (12, ())


def test_what_the_worker_would_reject_says_why() -> None:
    made = life()
    made.pins(3, 4)
    foreseen = preview(made.session, Configure((("max_checkpoints", 4),)), RetentionPolicy(), now=0)
    assert foreseen.rejected is not None
    assert foreseen.rejected.code == "pin-limit"
    assert "max_checkpoints must be at least 5" in foreseen.rejected.message
    assert (foreseen.kept, foreseen.removed) == (9, ())
