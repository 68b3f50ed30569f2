"""Commands that an authority has skipped: the partition continues, and live, replay and verify agree about the log."""

from typing import Any

import orjson
import pytest
from tests.simulation.database import request_skip
from tests.simulation.loop import OUTSIDE
from tests.simulation.oracle import judge
from tests.simulation.test_failing_commands import Told, poison, quiet, send
from tests.simulation.world import World
from tests.support.signing import public_key, signed_headers

from waypost.wire.encode import authority_body, policy_body, skip_body
from waypost.wire.event_types import EventType
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.failure import FailingCommandError
from waypost_worker.partition.ports import RefusedError
from waypost_worker.partition.skips import UnskippedError


def command(world: World, kind: EventType, body: bytes, key: str | None, at: int = 0) -> int:
    """A command about partition 0, signed with this key; its offset. ``at`` microseconds from now."""
    log, now = world.commands[0], world.now_ms()
    headers = signed_headers(key, 0, kind.wire, f"{kind}-{log.end}", now * 1000 + at, body)
    return log.append(now, None, body, headers)


def authority(world: World, name: str | None, signed_with: str | None = None) -> int:
    body = authority_body(None if name is None else public_key(name))
    return command(world, EventType.CONFIGURE_AUTHORITY, body, signed_with)


def order(world: World, offset: int, key: str | None = "one", record: bytes | None = None) -> int:
    (named,) = [record for record in world.commands[0].records if record.offset == offset]
    body = skip_body(offset, anchor_of(named) if record is None else record, "a bug")
    return command(world, EventType.SKIP, body, key, at=1)


def answers(world: World) -> dict[int, tuple[str, Any]]:
    """Type and code of each result of partition 0, by command offset."""
    found = {}
    for record in world.results[0].records:
        kind, body = dict(record.headers)["ce_type"].decode(), orjson.loads(record.value)
        if kind != EventType.ACQUIRED:
            found[body["command"]["offset"]] = (kind.removeprefix("waypost."), body.get("code"))
    return found


@pytest.fixture
def world() -> World:
    return quiet(duration=60.0)


def at(world: World, second: float, action: Any, *arguments: Any) -> None:
    world.loop.call_at(second, action, *arguments, context=OUTSIDE)


def test_a_partition_continues_behind_a_command_that_was_skipped(world: World) -> None:
    told = Told(world)

    def begin() -> None:
        authority(world, "one")
        send(world, 0, 10)
        poison(world, 0, 5)

    def skip() -> None:
        assert "offset 5 of partition 0" in (world.fleet.refused(0) or "")
        database = world.database_of(0)
        assert database.tables[0].blocked_offset == 5
        assert request_skip(database, 0, 5)
        order(world, 5)
        send(world, 0, 3)

    at(world, 1, begin)
    at(world, 15, skip)
    at(world, 59, lambda: seen.update(answers(world)))
    seen: dict[int, Any] = {}
    world.run()
    assert told.of(FailingCommandError)
    assert seen[5] == ("command.rejected", "skipped")
    assert seen[6] == ("checkpoint.created", None)
    assert seen[11] == ("partition.skipped", None)
    assert seen[14] == ("checkpoint.created", None)
    assert world.database_of(0).tables[0].authority.skipped == (5,)
    assert judge(world).problems == []


def test_a_skip_is_noticed_soon_however_long_the_partition_was_refused(world: World) -> None:
    """By then, terms are further apart than what the skip has to be noticed in."""

    def begin() -> None:
        authority(world, "one")
        send(world, 0, 10)
        poison(world, 0, 5)

    def skip() -> None:
        assert request_skip(world.database_of(0), 0, 5)
        order(world, 5)

    at(world, 1, begin)
    at(world, 45, skip)
    seen: list[int] = []
    at(world, 50, lambda: seen.append(world.last_answered(0)))
    world.run()
    assert seen == [11]
    assert judge(world).problems == []


def test_the_authority_may_be_named_behind_the_command(world: World) -> None:
    def begin() -> None:
        send(world, 0, 10)
        poison(world, 0, 5)

    def skip() -> None:
        authority(world, "one")
        assert request_skip(world.database_of(0), 0, 5)
        order(world, 5)

    at(world, 1, begin)
    at(world, 15, skip)
    world.run()
    assert world.database_of(0).tables[0].authority.skipped == (5,)
    assert judge(world).problems == []


@pytest.mark.parametrize(
    "forged", ["unsigned", "another key", "the old key", "another record", "no authority"]
)
def test_an_order_that_is_not_the_authoritys_skips_nothing_and_is_answered(world: World, forged: str) -> None:
    told = Told(world)
    placed: list[int] = []

    def begin() -> None:
        if forged != "no authority":
            authority(world, "one")
        send(world, 0, 10)
        poison(world, 0, 5)

    def skip() -> None:
        assert request_skip(world.database_of(0), 0, 5)
        if forged == "the old key":
            authority(world, "two", "one")
        key = {"unsigned": None, "another key": "other"}.get(forged, "one")
        placed.append(order(world, 5, key, bytes(16) if forged == "another record" else None))

    at(world, 1, begin)
    at(world, 15, skip)
    at(world, 50, lambda: placed.append(len(answers(world))))
    # The real one comes later, and what was forged is answered then.
    at(
        world,
        51,
        lambda: (
            None if forged == "no authority" else order(world, 5, "two" if forged == "the old key" else "one")
        ),
    )
    world.run()
    assert placed[1] == 5, "nobody applied what an operator asked to have skipped"
    if forged == "no authority":
        assert "no valid order" in str(told.of(RefusedError)[-1])
        return
    # By then the command was skipped, whichever order did it.
    code = None if forged == "another record" else "unauthorized"
    assert answers(world)[placed[0]][1] == code
    assert judge(world).problems == []


def test_a_worker_without_the_bug_does_not_apply_what_is_about_to_be_skipped(world: World) -> None:
    """Between the request in Postgres and the order in the log, somebody may have fixed the bug."""
    told = Told(world)

    def begin() -> None:
        authority(world, "one")
        send(world, 0, 10)
        poison(world, 0, 5)

    at(world, 1, begin)
    at(world, 15, lambda: request_skip(world.database_of(0), 0, 5))
    at(world, 16, world.poison.fix)
    seen: list[int] = []
    at(world, 45, lambda: seen.append(world.last_answered(0)))
    at(world, 46, order, world, 5)
    world.run()
    assert seen == [4]
    assert any("no valid order" in str(why) for why in told.of(RefusedError))
    assert answers(world)[5] == ("command.rejected", "skipped")
    assert judge(world).problems == []


def test_a_request_comes_too_late_once_the_command_is_applied(world: World) -> None:
    def begin() -> None:
        authority(world, "one")
        send(world, 0, 10)
        poison(world, 0, 5)

    at(world, 1, begin)
    at(world, 15, world.poison.fix)
    asked: list[bool] = []
    at(world, 55, lambda: asked.append(request_skip(world.database_of(0), 0, 5)))
    world.run()
    assert asked == [False]
    assert answers(world)[5] == ("checkpoint.created", None)
    assert judge(world).problems == []


def test_an_order_for_an_applied_command_refuses_the_partition(world: World) -> None:
    """Only the holder of the key can do so, and against what the command line says: the log then says otherwise."""
    told = Told(world)

    def begin() -> None:
        authority(world, "one")
        send(world, 0, 10)

    at(world, 1, begin)
    at(world, 15, order, world, 5)
    world.loop.call_at(50, setattr, world, "refusable", {0}, context=OUTSIDE)
    world.run()
    (why, *_) = told.of(UnskippedError)
    assert "the command at offset 5 was applied" in str(why)
    assert world.database_of(0).tables[0].next_offset == 11
    assert world.last_answered(0) == 10


def test_a_command_about_the_partition_cant_be_skipped(world: World) -> None:
    places: list[int] = []

    def begin() -> None:
        authority(world, "one")
        policy = policy_body({"max_checkpoints": 9})
        places.append(command(world, EventType.CONFIGURE_DEFAULTS, policy, "one", at=1))
        send(world, 0, 3)

    at(world, 1, begin)
    at(world, 15, lambda: places.append(order(world, places[0])))
    world.run()
    found = answers(world)
    assert found[places[0]] == ("defaults.configured", None)
    assert found[places[1]] == ("command.rejected", "conflict")
    assert judge(world).problems == []


def test_an_order_that_postgres_lost_is_found_again(world: World) -> None:
    """Postgres is restored to a moment before the command; the results topic shows that more was done."""

    def begin() -> None:
        authority(world, "one")
        send(world, 0, 10)
        poison(world, 0, 5)

    def skip() -> None:
        assert request_skip(world.database_of(0), 0, 5)
        order(world, 5)
        send(world, 0, 3)

    def restore() -> None:
        world.poison.fix()
        assert world.last_answered(0) == 14
        world.database_of(0).fail_over(10**6)
        world.database_of(0).server.break_connections()

    at(world, 1, begin)
    at(world, 15, skip)
    at(world, 40, restore)
    at(world, 41, send, world, 0, 3)
    world.run()
    stored = world.database_of(0).tables[0].authority
    assert (stored.key, stored.skipped) == (public_key("one"), (5,))
    assert judge(world).problems == []


@pytest.mark.parametrize("named", ["before", "behind"])
def test_an_order_holds_though_its_request_was_lost(world: World, named: str) -> None:
    """A version without the bug starts, and nothing in Postgres or in the results topic says that there is an order.

    With an authority, an owner looks for orders all the same. Without one, it meets the order in the batch that would
    apply the command, and looks for orders from then on.
    """
    told = Told(world)

    def begin() -> None:
        if named == "before":
            authority(world, "one")
        else:
            send(world, 0, 1)
        send(world, 0, 10)
        poison(world, 0, 5)

    def skip() -> None:
        database = world.database_of(0)
        if named == "behind":
            authority(world, "one")
        assert request_skip(database, 0, 5)
        order(world, 5)
        database.fail_over(1)
        assert database.tables[0].skip_offset is None
        world.poison.fix()
        world.fleet.crash(world.fleet.hosts[0])
        world.fleet.boot(0)
        world.fleet.own(world.fleet.hosts[0], 0)

    at(world, 1, begin)
    at(world, 15, skip)
    world.run()
    assert len(told.of(UnskippedError)) == (named == "behind")
    assert answers(world)[5] == ("command.rejected", "skipped")
    assert judge(world).problems == []
