"""The default policy of a partition: set by commands of the log, each of which counts once."""

from waypost.model.commands import Command, ConfigureDefaults
from waypost.model.decisions import DefaultsConfigured, Duplicate, Rejected
from waypost.model.defaults import Defaults
from waypost.model.index import DEDUP_WINDOW
from waypost.model.retention import RetentionPolicy


def command(command_id: str | None, **changes: int | None) -> tuple[Command, ConfigureDefaults]:
    action = ConfigureDefaults(tuple(changes.items()))
    return Command(id=command_id, position=1, taken_at=0, recorded_at=0, action=action), action


def configured(defaults: Defaults, command_id: str | None, **changes: int | None) -> RetentionPolicy:
    """Decide, evolve; the policy that the decision names."""
    asked, action = command(command_id, **changes)
    decision = defaults.decide(asked, action)
    assert isinstance(decision, DefaultsConfigured)
    defaults.evolve(asked, decision)
    return decision.policy


def test_a_command_changes_the_fields_it_names_and_no_others() -> None:
    defaults = Defaults()
    assert configured(defaults, "one", max_checkpoints=9) == RetentionPolicy(max_checkpoints=9)
    assert configured(defaults, "two", keep_recent=3) == RetentionPolicy(max_checkpoints=9, keep_recent=3)
    assert defaults == Defaults(RetentionPolicy(max_checkpoints=9, keep_recent=3), ["one", "two"])


def test_deciding_changes_nothing() -> None:
    defaults = Defaults()
    defaults.decide(*command("one", max_checkpoints=9))
    assert defaults == Defaults()


def test_a_repeated_command_is_a_duplicate_of_no_checkpoint() -> None:
    defaults = Defaults()
    configured(defaults, "one", max_checkpoints=9)
    assert defaults.decide(*command("one", max_checkpoints=8)) == Duplicate(None)


def test_what_is_out_of_bounds_is_rejected_with_code_and_reason() -> None:
    decision = Defaults().decide(*command("one", max_checkpoints=1))
    assert isinstance(decision, Rejected)
    assert decision.code == "invalid-body"
    assert decision.message.startswith("max_checkpoints: 1 is not between 2 and")


def test_a_command_without_an_id_is_taken_and_not_remembered() -> None:
    defaults = Defaults()
    assert configured(defaults, None, max_checkpoints=9) == RetentionPolicy(max_checkpoints=9)
    assert defaults.recent == []


def test_the_last_ids_are_remembered_and_older_ones_forgotten() -> None:
    defaults = Defaults()
    names = [f"id-{number}" for number in range(DEDUP_WINDOW + 2)]
    for name in names:
        configured(defaults, name, max_checkpoints=9)
    assert defaults.recent == names[2:]
    assert isinstance(defaults.decide(*command("id-1", max_checkpoints=9)), DefaultsConfigured)
    assert isinstance(defaults.decide(*command("id-2", max_checkpoints=9)), Duplicate)
