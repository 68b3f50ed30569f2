"""What an owner may rely on in any Store: a batch is stored whole or not at all, and comes back as it was."""

import asyncio

import pytest
from tests.conformance.stores import MOMENT, Hand, Stores, acquired, data_of, entry, facts, puts

from waypost.model.authority import Authority
from waypost.model.index import SeenCommand, Session
from waypost.model.retention import RetentionPolicy
from waypost_worker.partition.ports import Changes, FencedError, RejectedRow, RejectedWindow, Row

KEY = bytes(range(1, 33))

# Checkpoints.


async def test_what_was_put_is_loaded_with_every_field(stores: Stores) -> None:
    hand = await acquired(stores)
    entries = [
        entry(1, "first"),
        entry(2, "imported", command_id=None, imported_id="other:7", position=90),
        entry(10**15, "pinned", pinned=True, taken_at=-62_135_596_800_000_000),
        entry(10**15 + 1, "last", recorded_at=253_402_300_799_999_999),
    ]
    changes = puts("s", entries)
    await hand.commit(changes)
    stored = await (await stores.open()).load(["s", "unknown"])
    assert facts(stored) == facts({"s": changes.sessions["s"][0]})
    assert stored["s"].counter == 10**15 + 1


async def test_texts_and_times_of_any_kind_come_back_as_they_were(stores: Stores) -> None:
    hand = await acquired(stores)
    texts = [
        "NULL",
        "null",
        " ",
        "{}",
        "a,b",
        "{a",
        'say "yes"',
        "back\\slash",
        "\\n",
        "\\\\",
        '\\"',
        "'",
        "ü 漢 😀",
        "\x7f",
    ]
    texts += ["true", "1", "\n", "\x01", "a" * 200]
    times = [-62_135_596_800_000_000, -1, 0, 1, 999_999, 9_007_199_254_740_993, 253_402_300_799_999_999]
    changes = Changes()
    for at, text in enumerate(texts):
        entries = [
            entry(number, text, command_id=text, taken_at=time, recorded_at=time)
            for number, time in enumerate(times[at % len(times) :], 1)
        ]
        entries.append(entry(len(entries) + 1, command_id=None, imported_id=text))
        recent = [SeenCommand(1000, text + "r", None), SeenCommand(1001, text + "s", 7)]
        session = Session.restore(text, 9, None, entries, recent)
        changes.sessions[text] = (session, times[at % len(times)])
        changes.remembered += [(text, one) for one in recent]
        for one in entries:
            changes.puts[text, one.number] = Row(text, one, data_of(one.number), b"{}")
    await hand.commit(changes)
    stored = await (await stores.open()).load(texts)
    assert facts(stored) == facts({text: session for text, (session, _) in changes.sessions.items()})


async def test_contents_come_back_byte_for_byte_and_missing_ones_are_absent(stores: Stores) -> None:
    hand = await acquired(stores)
    changes = puts("s", [entry(1), entry(2), entry(3)], metadata=b'{"a":1.5,"b":[]}')
    changes.puts["s", 2] = changes.puts["s", 2]._replace(
        data=b'{"x" : "\\u0000",\n "x2":1e5}', metadata=b"{}"
    )
    await hand.commit(changes)
    assert await hand.store.contents([("s", 2), ("s", 3), ("s", 4), ("t", 1)]) == {
        ("s", 2): (b'{"x" : "\\u0000",\n "x2":1e5}', b"{}"),
        ("s", 3): (data_of(3), b'{"a":1.5,"b":[]}'),
    }
    assert await hand.store.contents([]) == {}


async def test_dropped_ones_are_gone_and_their_number_may_come_again(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit(puts("s", [entry(1), entry(2), entry(3)]))
    changes = puts("s", [entry(2, "again", pinned=True)], data=b'{"second": true}')
    changes.drops = {("s", 1): None, ("s", 2): None, ("s", 77): None, ("t", 1): None}
    changes.sessions["s"] = (
        Session.restore("s", 3, None, [entry(2, "again", pinned=True), entry(3)], []),
        MOMENT,
    )
    await hand.commit(changes)
    stored = await (await stores.open()).load(["s"])
    assert facts(stored) == facts({"s": changes.sessions["s"][0]})
    assert await hand.store.contents([("s", 1), ("s", 2)]) == {("s", 2): (b'{"second": true}', b"{}")}


async def test_many_rows_may_be_replaced_in_one_batch(stores: Stores) -> None:
    hand = await acquired(stores)
    numbers = range(1, 401)
    await hand.commit(puts("s", [entry(number) for number in numbers]))
    changes = puts("s", [entry(number, "again") for number in numbers], data=b"{}")
    changes.drops = dict.fromkeys(("s", number) for number in numbers)
    await hand.commit(changes)
    stored = (await hand.store.load(["s"]))["s"].live()
    assert [(one.number, one.name) for one in stored] == [(number, "again") for number in numbers]


async def test_pins_change_stored_rows_and_rows_of_the_same_batch(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit(puts("s", [entry(1), entry(2, pinned=True), entry(3)]))
    changes = puts("s", [entry(4), entry(5, pinned=True)])
    changes.pins = {("s", 1): True, ("s", 2): False, ("s", 4): True, ("s", 5): False, ("s", 99): True}
    await hand.commit(changes)
    found = {one.number: one.pinned for one in (await hand.store.load(["s"]))["s"].live()}
    assert found == {1: True, 2: False, 3: False, 4: True, 5: False}


async def test_what_is_dropped_and_pinned_in_one_batch_is_gone(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit(puts("s", [entry(1), entry(2)]))
    changes = puts("s", [])
    changes.drops = {("s", 1): None}
    changes.pins = {("s", 1): True}
    await hand.commit(changes)
    assert [one.number for one in (await hand.store.load(["s"]))["s"].live()] == [2]


# Sessions and their memory.


async def test_a_session_keeps_counter_and_policy_without_checkpoints(stores: Stores) -> None:
    hand = await acquired(stores)
    for policy in (RetentionPolicy(7, 5, 3, 10**15, encrypted=True), None, RetentionPolicy(2, 1, 0, None)):
        session = Session("s", 41, policy)
        await hand.commit(Changes(sessions={"s": (session, MOMENT)}))
        assert facts(await (await stores.open()).load(["s"])) == facts({"s": session})


async def test_a_loaded_session_knows_when_its_last_command_was_recorded(stores: Stores) -> None:
    hand = await acquired(stores)
    for at in (MOMENT, MOMENT + 7, MOMENT - 1):
        await hand.commit(Changes(sessions={"s": (Session("s", 1), at)}))
        assert (await (await stores.open()).load(["s"]))["s"].last_recorded_at == at


async def test_hundreds_of_sessions_are_loaded_together(stores: Stores) -> None:
    hand = await acquired(stores)
    wanted: dict[str, Session] = {}
    together = Changes()
    for at in range(400):
        one = puts(f"s{at}", [entry(number, position=at * 10 + number) for number in range(1, 1 + at % 4)])
        together.puts |= one.puts
        together.sessions |= one.sessions
        if at % 3:
            remembered = SeenCommand(at, f"gone-{at}", None if at % 2 else at)
            one.sessions[f"s{at}"][0].recent.append(remembered)
            together.remembered.append((f"s{at}", remembered))
        wanted[f"s{at}"] = one.sessions[f"s{at}"][0]
    await hand.commit(together)
    ids = [f"s{at}" for at in range(500)]
    assert facts(await (await stores.open()).load(ids)) == facts(wanted)
    assert await hand.store.load([]) == {}


async def test_sizes_are_known_without_loading_anything(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit(puts("large", [entry(number) for number in range(1, 8)]))
    await hand.commit(puts("empty", []))
    assert await hand.store.sizes(["large", "unknown", "empty"]) == {"large": 7, "empty": 0}
    assert await hand.store.sizes([]) == {}
    await acquired(stores)
    with pytest.raises(FencedError):
        await hand.store.sizes(["large"])


def rejection(offset: int) -> RejectedRow:
    return RejectedRow(offset, None, None, "c", "m", b"k", b"v", [("h", b"x")], MOMENT)


async def test_rejected_commands_make_room_for_newer_ones(stores: Stores) -> None:
    hand = await acquired(stores)
    assert hand.state.rejected_window == RejectedWindow()
    await hand.commit(Changes(rejected=[rejection(offset) for offset in range(5)]))
    window = RejectedWindow(3, ((4, 2), (8, 1)), 2**40)
    changes = Changes(rejected=[rejection(offset) for offset in (7, 8, 9)])
    changes.rejected_below, changes.rejected_window = 8, window
    await hand.commit(changes)
    assert await stores.rejected(0) == [8, 9]
    await hand.commit(Changes())  # the window stays
    other = await acquired(stores, 1)
    assert other.state.rejected_window == RejectedWindow()
    again = await acquired(stores)
    assert again.state.rejected_window == window
    await again.commit(Changes(rejected=[rejection(12)]))
    assert await stores.rejected(0) == [8, 9, 12]
    overtaken = Changes(rejected=[rejection(14)], rejected_below=20, rejected_window=RejectedWindow())
    with pytest.raises(FencedError):
        await hand.commit(overtaken)
    assert await stores.rejected(0) == [8, 9, 12]


async def test_remembered_commands_come_back_in_order_and_forgotten_ones_do_not(stores: Stores) -> None:
    hand = await acquired(stores)
    remembered = [SeenCommand(at, f"id-{at}", at if at % 2 else None) for at in (2, 5, 9, 12)]
    session = Session.restore("s", 20, None, [], remembered)
    other = Session.restore("t", 20, None, [], [SeenCommand(1, "kept", None)])
    await hand.commit(
        Changes(
            sessions={"s": (session, MOMENT), "t": (other, MOMENT)},
            remembered=[*(("s", one) for one in reversed(remembered)), ("t", other.recent[0])],
        )
    )
    assert (await hand.store.load(["s"]))["s"].recent == remembered
    left = Session.restore("s", 20, None, [], remembered[2:])
    await hand.commit(Changes(sessions={"s": (left, MOMENT)}, forgotten={"s": 9}))
    assert facts(await hand.store.load(["s", "t"])) == facts({"s": left, "t": other})


async def test_what_one_batch_remembers_and_forgets_is_not_kept(stores: Stores) -> None:
    hand = await acquired(stores)
    session = Session.restore("s", 9, None, [], [SeenCommand(8, "id-8", None)])
    await hand.commit(
        Changes(
            sessions={"s": (session, MOMENT)},
            remembered=[("s", SeenCommand(at, f"id-{at}", None)) for at in (3, 5, 8)],
            forgotten={"s": 8},
        )
    )
    assert (await hand.store.load(["s"]))["s"].recent == [SeenCommand(8, "id-8", None)]


async def test_an_old_command_id_that_comes_back_after_the_forgetting_is_kept(stores: Stores) -> None:
    # A checkpoint that was dropped after others were forgotten: its command is older than they are.
    hand = await acquired(stores)
    recent = [SeenCommand(1, "old", 1), SeenCommand(50, "young", None)]
    session = Session.restore("s", 9, None, [], recent)
    await hand.commit(
        Changes(
            sessions={"s": (session, MOMENT)},
            remembered=[("s", SeenCommand(20, "gone", None)), ("s", recent[1]), ("s", recent[0])],
            forgotten={"s": 50},
        )
    )
    assert (await hand.store.load(["s"]))["s"].recent == recent


# Defaults, refusals, and all of it at once.


async def test_default_policy_and_the_ids_that_set_it_are_found_again(stores: Stores) -> None:
    hand = await acquired(stores)
    policy = RetentionPolicy(9, 8, 7, 6, encrypted=True)
    await hand.commit(Changes(default_policy=policy, partition_commands=["a", "ü"]))
    await hand.commit()
    claim = (await acquired(stores)).state
    assert (claim.default_policy, claim.default_commands) == (policy, ["a", "ü"])
    assert claim.authority == Authority()


async def test_an_authority_is_found_again_and_its_time_outlives_it(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit(Changes(authority=Authority(KEY, -5)))
    await hand.commit()
    hand = await acquired(stores)
    assert hand.state.authority == Authority(KEY, -5)
    assert (hand.state.default_policy, hand.state.default_commands) == (RetentionPolicy(), [])
    await hand.commit(Changes(authority=Authority(None, 2**60)))
    assert (await acquired(stores)).state.authority == Authority(None, 2**60)


def everything(session_id: str = "s") -> Changes:
    """A batch that uses every kind of change, over a session that holds 1 to 3."""
    changes = puts(session_id, [entry(4), entry(2, "again")])
    changes.drops = {(session_id, 2): None, (session_id, 3): None}
    changes.pins = {(session_id, 1): True}
    left = [entry(1, pinned=True), entry(2, "again"), entry(4)]
    remembered = SeenCommand(3, "command-3", 3)
    changes.sessions[session_id] = (
        Session.restore(session_id, 4, RetentionPolicy(9), left, [remembered]),
        MOMENT + 1,
    )
    changes.remembered = [(session_id, remembered)]
    changes.forgotten = {session_id: 2}
    changes.rejected = [
        RejectedRow(15, session_id, "id", "conflict", "no", b"k", b"v", [("h", b"x")], MOMENT),
        RejectedRow(16, None, None, "invalid-body", "\0", None, None, [], MOMENT),
    ]
    changes.default_policy, changes.partition_commands = RetentionPolicy(11), ["set"]
    changes.authority = Authority(KEY, 7)
    return changes


async def seeded(stores: Stores) -> Hand:
    """A process that holds a partition whose session has checkpoints 1 to 3 and a memory."""
    hand = await acquired(stores)
    changes = puts("s", [entry(1), entry(2), entry(3)])
    changes.remembered = [("s", SeenCommand(1, "forgotten", None))]
    await hand.commit(changes)
    hand.emit(9)
    return hand


async def test_every_kind_of_change_in_one_batch(stores: Stores) -> None:
    hand = await seeded(stores)
    changes = everything()
    await hand.commit(changes)
    successor = await acquired(stores)
    assert facts(await successor.store.load(["s"])) == facts({"s": changes.sessions["s"][0]})
    assert successor.state.default_policy == RetentionPolicy(11)
    assert successor.state.authority == Authority(KEY, 7)
    assert [one.first_offset for one in successor.state.outbox] == [10]


async def test_a_fenced_batch_leaves_nothing_behind_of_any_kind(stores: Stores) -> None:
    zombie = await seeded(stores)
    owner = await acquired(stores)
    before = facts(await owner.store.load(["s"]))
    with pytest.raises(FencedError):
        await zombie.commit(everything())
    with pytest.raises(FencedError):
        await zombie.commit(everything("unknown"))
    assert facts(await owner.store.load(["s", "unknown"])) == before
    claim = (await acquired(stores)).state
    assert (claim.default_policy, claim.default_commands) == (RetentionPolicy(), [])
    assert claim.authority == Authority()
    assert [one.first_offset for one in claim.outbox] == [0]
    # Were a row of the zombie's left, this would collide with it.
    heir = await acquired(stores)
    await heir.commit(everything())
    assert facts(await heir.store.load(["s"])) != before


async def test_a_batch_that_fails_half_way_leaves_nothing_behind(stores: Stores) -> None:
    hand = await seeded(stores)
    before = facts(await hand.store.load(["s"]))
    changes = everything()
    again = puts("s", [entry(1)]).puts["s", 1]
    changes.puts["s", 1] = again  # an owner never does this: the row is there and is not dropped
    with pytest.raises(Exception, match=r"duplicate|twice"):
        await hand.commit(changes)
    successor = await acquired(stores)
    assert successor.state.next_offset == 10
    assert facts(await successor.store.load(["s"])) == before


async def test_a_canceled_commit_counts_whole_or_not_at_all(stores: Stores) -> None:
    for at in range(10):
        hand = await acquired(stores)
        before = hand.next_offset
        session_id = f"s{at}"
        task = asyncio.create_task(hand.commit(puts(session_id, [entry(n) for n in range(1, 301)])))
        for _ in range(at):
            await asyncio.wait({task}, timeout=0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        successor = await acquired(stores)
        counted = successor.state.next_offset > before
        stored = await successor.store.load([session_id])
        assert len(stored[session_id]) == 300 if counted else session_id not in stored
