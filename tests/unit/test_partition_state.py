"""What commands about a whole partition decide: its default policy, who may change it, and that each counts once."""

from collections.abc import Callable

import pytest
from tests.oracle import ed25519

from waypost.model.authority import Authority, key_problem
from waypost.model.commands import Command, ConfigureAuthority, ConfigureDefaults, PartitionAction, Skip
from waypost.model.decisions import (
    AuthorityConfigured,
    DefaultsConfigured,
    Duplicate,
    NotSkipped,
    Rejected,
    Skipped,
)
from waypost.model.index import DEDUP_WINDOW
from waypost.model.partition_state import PartitionState
from waypost.model.retention import RetentionPolicy

ONE, OTHER = b"\x11" * 32, b"\x22" * 32


def unsigned(key: bytes) -> bool:
    return False


def signed(with_key: bytes) -> Callable[[bytes], bool]:
    return lambda key: key == with_key


def command(command_id: str | None, at: int = 0, **changes: int | None) -> tuple[Command, ConfigureDefaults]:
    action = ConfigureDefaults(tuple(changes.items()))
    return Command(id=command_id, position=1, taken_at=at, recorded_at=0, action=action), action


def configured(state: PartitionState, command_id: str | None, **changes: int | None) -> RetentionPolicy:
    """Decide, evolve; the policy that the decision names."""
    decision = state.take(*command(command_id, **changes), unsigned)
    assert isinstance(decision, DefaultsConfigured)
    return decision.policy


def test_a_command_changes_the_fields_it_names_and_no_others() -> None:
    state = PartitionState()
    assert configured(state, "one", max_checkpoints=9) == RetentionPolicy(max_checkpoints=9)
    assert configured(state, "two", keep_recent=3) == RetentionPolicy(max_checkpoints=9, keep_recent=3)
    assert state == PartitionState(RetentionPolicy(max_checkpoints=9, keep_recent=3), ["one", "two"])


def test_deciding_changes_nothing() -> None:
    state = PartitionState()
    state.decide(*command("one", max_checkpoints=9))
    assert state == PartitionState()


def test_a_repeated_command_is_a_duplicate_of_no_checkpoint() -> None:
    state = PartitionState()
    configured(state, "one", max_checkpoints=9)
    assert state.take(*command("one", max_checkpoints=8), unsigned) == Duplicate(None)


def test_what_is_out_of_bounds_is_rejected_with_code_and_reason() -> None:
    decision = PartitionState().decide(*command("one", max_checkpoints=1))
    assert isinstance(decision, Rejected)
    assert decision.code == "invalid-body"
    assert decision.message.startswith("max_checkpoints: 1 is not between 2 and")


def test_a_command_without_an_id_is_taken_and_not_remembered() -> None:
    state = PartitionState()
    assert configured(state, None, max_checkpoints=9) == RetentionPolicy(max_checkpoints=9)
    assert state.recent == []


def test_the_last_ids_are_remembered_and_older_ones_forgotten() -> None:
    state = PartitionState()
    names = [f"id-{number}" for number in range(DEDUP_WINDOW + 2)]
    for name in names:
        configured(state, name, max_checkpoints=9)
    assert state.recent == names[2:]
    assert isinstance(state.take(*command("id-2", max_checkpoints=9), unsigned), Duplicate)
    assert isinstance(state.take(*command("id-1", max_checkpoints=9), unsigned), DefaultsConfigured)


# The authority.


def take(
    state: PartitionState,
    command_id: str,
    at: int,
    action: PartitionAction,
    key: bytes | None = None,
) -> str:
    """The code of a rejection, or what happened. ``key`` is the one that signed."""
    asked = Command(id=command_id, position=50, taken_at=at, recorded_at=0, action=action)
    decision = state.take(asked, action, unsigned if key is None else signed(key))
    match decision:
        case Rejected():
            return decision.code
        case Duplicate():
            return "duplicate"
        case NotSkipped():
            return "not skipped"
        case _:
            return "done"


POLICY = ConfigureDefaults((("max_checkpoints", 9),))


@pytest.fixture
def state() -> PartitionState:
    """A partition to which ONE is the authority since 100."""
    state = PartitionState()
    assert take(state, "first", 100, ConfigureAuthority(ONE)) == "done"
    assert state.authority == Authority(ONE, 100)
    return state


def test_the_first_authority_needs_no_signature_and_anything_after_it_does(state: PartitionState) -> None:
    assert take(state, "a", 200, POLICY) == "unauthorized"
    assert take(state, "b", 200, ConfigureAuthority(OTHER)) == "unauthorized"
    assert take(state, "c", 200, ConfigureAuthority(None)) == "unauthorized"
    assert state.authority == Authority(ONE, 100)
    assert take(state, "d", 200, POLICY, ONE) == "done"
    assert state.policy == RetentionPolicy(max_checkpoints=9)


def test_another_key_signs_nothing(state: PartitionState) -> None:
    assert take(state, "a", 200, POLICY, OTHER) == "unauthorized"
    assert take(state, "b", 200, ConfigureAuthority(OTHER), OTHER) == "unauthorized"


def test_a_rotated_key_counts_from_the_next_command_on_and_the_old_one_no_more(state: PartitionState) -> None:
    assert take(state, "a", 200, ConfigureAuthority(OTHER), ONE) == "done"
    assert take(state, "b", 300, POLICY, ONE) == "unauthorized"
    assert take(state, "c", 300, POLICY, OTHER) == "done"


def test_a_removed_key_lets_anybody_configure_again(state: PartitionState) -> None:
    assert take(state, "a", 200, ConfigureAuthority(None), ONE) == "done"
    assert take(state, "b", 0, POLICY) == "done"


@pytest.mark.parametrize("at", [99, 100])
def test_the_time_must_rise(state: PartitionState, at: int) -> None:
    assert take(state, "a", at, POLICY, ONE) == "unauthorized"
    assert take(state, "a", 101, POLICY, ONE) == "done"
    assert state.authority == Authority(ONE, 101)


def test_a_signed_command_of_the_past_does_not_count_when_its_key_comes_back(state: PartitionState) -> None:
    """Else an agent could keep what the operator sent once, and send it again."""
    assert take(state, "old", 200, POLICY, ONE) == "done"
    assert take(state, "a", 300, ConfigureAuthority(OTHER), ONE) == "done"
    assert take(state, "b", 400, ConfigureAuthority(None), OTHER) == "done"
    assert take(state, "c", 50, ConfigureAuthority(ONE)) == "done"
    assert state.authority == Authority(ONE, 400)
    state.recent.clear()
    assert take(state, "old", 200, POLICY, ONE) == "unauthorized"


def test_a_repeated_signed_command_is_a_duplicate_and_an_unsigned_one_of_its_id_is_not(
    state: PartitionState,
) -> None:
    assert take(state, "a", 200, POLICY, ONE) == "done"
    assert take(state, "a", 200, POLICY, ONE) == "duplicate"
    assert take(state, "a", 200, POLICY) == "unauthorized"


def test_a_signed_command_counts_once_even_if_it_is_rejected(state: PartitionState) -> None:
    """Else an agent could keep it until it would be accepted."""
    assert take(state, "a", 200, ConfigureDefaults((("max_checkpoints", 1),)), ONE) == "invalid-body"
    assert take(state, "b", 200, POLICY, ONE) == "unauthorized"
    assert take(state, "b", 201, POLICY, ONE) == "done"


def test_a_forged_command_takes_no_time(state: PartitionState) -> None:
    assert take(state, "a", 10**18, POLICY, OTHER) == "unauthorized"
    assert take(state, "b", 101, POLICY, ONE) == "done"


SKIP = Skip(7, b"h" * 16, "a bug")


def test_only_an_authority_has_commands_skipped(state: PartitionState) -> None:
    assert take(PartitionState(), "a", 200, SKIP, ONE) == "unauthorized"
    assert take(state, "a", 200, SKIP) == "unauthorized"
    assert take(state, "a", 200, SKIP, OTHER) == "unauthorized"
    assert take(state, "a", 200, SKIP, ONE) == "not skipped"


def test_an_order_is_answered_by_whether_its_command_was_skipped(state: PartitionState) -> None:
    state.skip(7)
    assert state.authority.skipped == (7,)
    before = list(state.recent)
    assert take(state, "a", 200, SKIP, ONE) == "done"
    assert (state.recent, state.authority) == (before, Authority(ONE, 200, (7,)))
    assert take(state, "a", 200, SKIP, ONE) == "unauthorized"
    assert take(state, "a", 201, SKIP, ONE) == "done"


@pytest.mark.parametrize("offset", [50, 51])
def test_an_order_names_a_command_before_it(state: PartitionState, offset: int) -> None:
    assert take(state, "a", 200, Skip(offset, b"h" * 16, "a bug"), ONE) == "invalid-body"


def test_orders_count_whether_or_not_they_had_an_effect(state: PartitionState) -> None:
    """So what comes after them is the same for one who only looks ahead."""
    blind = PartitionState(state.policy, list(state.recent), state.authority)
    state.skip(7)
    for one in (state, blind):
        take(one, "a", 200, SKIP, ONE)
        assert take(one, "b", 200, POLICY, ONE) == "unauthorized"
        assert take(one, "a", 300, POLICY, ONE) == "done"
    assert (blind.policy, blind.recent) == (state.policy, state.recent)
    assert (blind.authority.key, blind.authority.signed_at) == (ONE, 300)


def test_without_an_authority_signatures_and_times_do_not_matter() -> None:
    state = PartitionState()
    assert take(state, "a", 200, POLICY, OTHER) == "done"
    assert take(state, "b", 100, POLICY) == "done"
    assert take(state, "c", 100, ConfigureAuthority(None)) == "done"
    assert isinstance(AuthorityConfigured(None), AuthorityConfigured)
    assert state.authority == Authority(None, 100)


def small_order() -> list[bytes]:
    """All encodings of points whose order divides 8, from the curve itself."""
    found = []
    for y in range(2**255 - 20, 2**255):  # encodings at or above the prime, and the ones just below
        found += [(y | sign << 255).to_bytes(32, "little") for sign in (0, 1)]
    point = next(
        p
        for seed in range(2, 100)
        if (q := ed25519.decompressed(seed.to_bytes(32, "little"))) is not None
        and ed25519.compressed(ed25519.times(4, p := ed25519.times(ed25519.L, q)))
        != (1).to_bytes(32, "little")
    )
    return found + [ed25519.compressed(ed25519.times(factor, point)) for factor in range(8)]


def test_keys_for_which_anybody_could_sign_are_invalid() -> None:
    found = small_order()
    assert len(set(found[-8:])) == 8
    assert all(key_problem(key) for key in found)


@pytest.mark.parametrize("key", [b"", b"\x11" * 31, b"\x11" * 33])
def test_a_key_has_32_bytes(key: bytes) -> None:
    assert "32" in (key_problem(key) or "")


def test_a_key_in_order_may_have_any_sign() -> None:
    for y in (2, 3, 2**255 - 21):
        for sign in (0, 1):
            assert key_problem((y | sign << 255).to_bytes(32, "little")) is None
    assert key_problem((1).to_bytes(32, "little")) == (
        "is not a key that only its holder can sign for: make one with 'waypost authority create-key'"
    )


def test_rejections_say_what_to_do(state: PartitionState) -> None:
    def rejection(of: PartitionState, at: int, action: PartitionAction, *, is_signed: bool = True) -> str:
        asked = Command(id="a", position=50, taken_at=at, recorded_at=0, action=action)
        decision = of.take(asked, action, signed(ONE) if is_signed else unsigned)
        assert isinstance(decision, Rejected)
        return decision.message

    assert rejection(PartitionState(), 200, SKIP) == (
        "this partition has no authority, and only an authority can have commands skipped: name one first, "
        "with 'waypost authority set'"
    )
    assert rejection(state, 200, POLICY, is_signed=False) == (
        "this partition has an authority, and the command is not signed with its key for this partition: "
        "sign it, as 'waypost' does with --authority-key"
    )
    assert rejection(state, 100, POLICY) == (
        "the ce_time of a signed command must be later than that of the last one: sign it again"
    )
    assert (
        rejection(state, 200, Skip(50, b"h" * 16, "a bug"))
        == "offset: 50 is not before this command's own offset"
    )


def test_an_answer_to_an_order_repeats_it(state: PartitionState) -> None:
    asked = Command(id="a", position=50, taken_at=200, recorded_at=0, action=SKIP)
    assert state.decide(asked, SKIP) == NotSkipped(7, b"h" * 16, "a bug")
    state.skip(7)
    assert state.decide(asked, SKIP) == Skipped(7, "a bug")
