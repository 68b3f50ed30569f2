"""A member of a group, with a coordinator that answers as a test tells it to."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    GroupLoadInProgressError,
    IllegalGenerationError,
    KafkaConnectionError,
    MemberIdRequired,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from tests.support.scripted_connections import ScriptedConnections

from waypost.kafka.group_member import FencedInstanceIdError, GroupMember, GroupOptions
from waypost.subscriber.failures import subscriber_error

TOPIC = "results"
FAR = 60.0
VERSIONS: Mapping[int, tuple[int, int]] = {
    8: (0, 3),
    9: (0, 3),
    11: (0, 5),
    12: (0, 1),
    13: (0, 1),
    14: (0, 3),
}
JOIN, SYNC, HEARTBEAT, LEAVE, COMMIT, COMMITTED = 11, 14, 12, 13, 8, 9


class Coordinator(ScriptedConnections):
    """Broker 1 coordinates the group. ``scripts`` has error codes or
    exceptions for the next requests of a kind.
    """

    def __init__(self, partitions: int = 2) -> None:
        super().__init__(TOPIC, *[1] * partitions)
        self.scripts: dict[int, list[int | Exception]] = defaultdict(list)
        self.asked: list[tuple[int, dict[str, Any]]] = []
        self.lookups = 0
        self.generation = 0
        self.positions: dict[int, int] = {}
        self.refuses_lookups = False

    async def coordinator_lookup(self, kind: object, group_id: str) -> int:
        self.lookups += 1
        if self.refuses_lookups:
            raise GroupAuthorizationFailedError
        return 1

    async def send(self, node: int, request: Any, *, group: object) -> Any:
        struct = request.prepare(VERSIONS)
        fields = dict(zip(struct.SCHEMA.names, map(struct.get_item, struct.SCHEMA.names), strict=True))
        self.asked.append((struct.API_KEY, fields))
        self.came.set()
        script = self.scripts[struct.API_KEY]
        code = script.pop(0) if script else 0
        if isinstance(code, Exception):
            raise code
        return self._answer(struct.API_KEY, fields, code)

    def _answer(self, key: int, fields: dict[str, Any], code: int) -> SimpleNamespace:
        answer = SimpleNamespace(error_code=code)
        if key == JOIN:
            self.generation += 1
            ((name, metadata),) = fields["group_protocols"]
            answer.member_id = fields["member_id"] or "member"
            answer.generation_id, answer.leader_id = self.generation, answer.member_id
            answer.group_protocol = name
            answer.members = [(answer.member_id, None, metadata)]
        elif key == SYNC:
            ((_, answer.member_assignment),) = fields["group_assignment"]
        elif key == COMMIT:
            answer.topics = [(topic, [(one[0], code) for one in some]) for topic, some in fields["topics"]]
        elif key == COMMITTED:
            answer.error_code = 0 if code == UnknownTopicOrPartitionError.errno else code
            answer.topics = [  # none with an error of the group, as brokers answer since version 2
                (topic, [(number, self.positions.get(number, -1), "", code) for number in numbers])
                for topic, numbers in fields["topics"]
                if not answer.error_code
            ]
        return answer

    def count(self, key: int) -> int:
        return sum(one == key for one, _ in self.asked)


class Life:
    """A member that runs, and what it was told."""

    def __init__(self, coordinator: Coordinator, **options: Any) -> None:
        self.told: list[list[int] | None] = []
        self.coordinator = coordinator
        self.member = GroupMember(
            coordinator,  # type: ignore[arg-type]
            TOPIC,
            GroupOptions(
                "group",
                (RangePartitionAssignor,),
                rebalance_timeout=10,
                **{"session_timeout": 6, "heartbeat_interval": 0.001, **options},
            ),
            on_revoked=self._revoked,
            on_assigned=self._assigned,
        )
        self.task = asyncio.create_task(self.member.run())

    async def _revoked(self) -> None:
        self.told.append(None)

    async def _assigned(self, partitions: list[TopicPartition]) -> None:
        self.told.append([partition.partition for partition in partitions])
        self.coordinator.came.set()

    def terms(self) -> int:
        return sum(one is not None for one in self.told)


@asynccontextmanager
async def joined(coordinator: Coordinator, **options: Any) -> AsyncIterator[Life]:
    life = Life(coordinator, **options)
    try:
        await coordinator.until(lambda: life.terms() == 1)
        yield life
    finally:
        life.task.cancel()
        await asyncio.gather(life.task, return_exceptions=True)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost.kafka.group_member._BACKOFF", 0)


async def test_a_member_joins_shows_that_it_lives_and_leaves() -> None:
    before = asyncio.all_tasks()
    coordinator = Coordinator()
    coordinator.scripts[JOIN] = [MemberIdRequired.errno]
    async with joined(coordinator) as life:
        assert life.told == [None, [0, 1]]
        await coordinator.until(lambda: coordinator.count(HEARTBEAT) > 2)
    assert [fields["member_id"] for key, fields in coordinator.asked if key == JOIN] == ["", "member"]
    await life.member.leave()
    await life.member.leave()
    assert [fields["member_id"] for key, fields in coordinator.asked if key == LEAVE] == ["member"]
    assert asyncio.all_tasks() == before


async def test_a_static_member_only_goes_silent() -> None:
    coordinator = Coordinator()
    async with joined(coordinator, instance_id="worker-1") as life:
        pass
    await life.member.leave()
    assert coordinator.count(LEAVE) == 0
    assert {fields["group_instance_id"] for key, fields in coordinator.asked if key == JOIN} == {"worker-1"}


@pytest.mark.parametrize(
    ("error", "member_id"),
    [(RebalanceInProgressError, "member"), (IllegalGenerationError, "member"), (UnknownMemberIdError, "")],
)
@pytest.mark.parametrize("key", [HEARTBEAT, SYNC, JOIN])
async def test_a_member_that_is_out_of_date_joins_again(key: int, error: Any, member_id: str) -> None:
    coordinator = Coordinator()
    async with joined(coordinator) as life:
        coordinator.scripts[key] = [error.errno]
        if key != HEARTBEAT:
            coordinator.scripts[HEARTBEAT] = [RebalanceInProgressError.errno]
        await coordinator.until(lambda: life.terms() == 2)
        assert life.told == [None, [0, 1], None, [0, 1]]
    joins = [fields["member_id"] for one, fields in coordinator.asked if one == JOIN]
    assert joins[-1] == member_id
    assert not life.task.done() or life.task.cancelled()


@pytest.mark.parametrize("key", [JOIN, SYNC, HEARTBEAT, COMMIT, COMMITTED])
@pytest.mark.parametrize(
    "problem",
    [NotCoordinatorForGroupError.errno, GroupLoadInProgressError.errno, KafkaConnectionError("closed")],
)
async def test_what_passes_is_waited_for(key: int, problem: Any) -> None:
    coordinator = Coordinator()
    coordinator.scripts[key] = [problem] * 3
    coordinator.positions = {1: 7}
    async with joined(coordinator) as life:
        await coordinator.until(lambda: coordinator.count(HEARTBEAT) > 4)
        await life.member.commit({TopicPartition(TOPIC, 0): 5})
        partitions = [TopicPartition(TOPIC, number) for number in range(2)]
        assert await life.member.committed(partitions) == {partitions[1]: 7}
    assert coordinator.lookups == (1 if problem == GroupLoadInProgressError.errno else 4)


async def test_a_coordinator_is_looked_up_again_if_it_is_silent_for_as_long_as_a_session_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coordinator = Coordinator()
    send, silent = coordinator.send, [HEARTBEAT]

    async def fall_silent(node: int, request: Any, *, group: object) -> Any:
        answer = await send(node, request, group=group)
        if request.API_KEY in silent:
            silent.clear()
            await asyncio.Event().wait()
        return answer

    monkeypatch.setattr(coordinator, "send", fall_silent)
    async with joined(coordinator, session_timeout=0.01):
        await coordinator.until(lambda: coordinator.count(HEARTBEAT) > 3)
        assert coordinator.lookups >= 2
        assert coordinator.count(JOIN) == 1


async def test_a_position_is_not_committed_for_partitions_that_went_to_others() -> None:
    coordinator = Coordinator()
    async with joined(coordinator) as life:
        for error in (RebalanceInProgressError, IllegalGenerationError, UnknownMemberIdError):
            coordinator.scripts[COMMIT] = [error.errno]
            with pytest.raises(CommitFailedError):
                await life.member.commit({TopicPartition(TOPIC, 0): 5})
        coordinator.scripts[COMMIT] = [TopicAuthorizationFailedError.errno]
        with pytest.raises(TopicAuthorizationFailedError, match=TOPIC):
            await life.member.commit({TopicPartition(TOPIC, 0): 5})
    generations = {
        fields["consumer_group_generation_id"] for key, fields in coordinator.asked if key == COMMIT
    }
    assert generations == {1}


async def test_a_commit_that_is_tried_again_is_still_of_its_own_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coordinator = Coordinator()
    again = asyncio.Event()

    async def refresh() -> None:
        await again.wait()

    monkeypatch.setattr(coordinator, "refresh", refresh)
    async with joined(coordinator) as life:
        coordinator.scripts[COMMIT] = [NotCoordinatorForGroupError.errno]
        committing = asyncio.create_task(life.member.commit({TopicPartition(TOPIC, 0): 5}))
        await coordinator.until(lambda: coordinator.count(COMMIT) == 1)
        coordinator.scripts[HEARTBEAT] = [IllegalGenerationError.errno]
        await coordinator.until(lambda: life.terms() == 2)
        again.set()
        await committing
    commits = [fields for key, fields in coordinator.asked if key == COMMIT]
    assert [fields["consumer_group_generation_id"] for fields in commits] == [1, 1]


async def test_a_partition_of_a_missing_topic_has_no_position() -> None:
    coordinator = Coordinator()
    async with joined(coordinator) as life:
        coordinator.scripts[COMMITTED] = [UnknownTopicOrPartitionError.errno]
        assert await life.member.committed([TopicPartition("missing", 0)]) == {}
        assert await life.member.committed([]) == {}


async def test_new_partitions_are_noticed() -> None:
    coordinator = Coordinator()
    async with joined(coordinator) as life:
        coordinator.lead(1, 1)
        coordinator.lead(1, 1, 1)
        await coordinator.until(lambda: life.terms() == 2)
        assert life.told[-1] == [0, 1, 2]


async def test_a_member_whose_application_asks_for_nothing_leaves_until_it_asks() -> None:
    coordinator = Coordinator()
    life = Life(coordinator, max_poll_interval=0.01)
    with life.member.polling():
        await coordinator.until(lambda: coordinator.count(HEARTBEAT) > 30)
        assert coordinator.count(LEAVE) == 0
    await coordinator.until(lambda: coordinator.count(LEAVE) == 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert coordinator.count(JOIN) == 1
    with life.member.polling():
        await coordinator.until(lambda: life.terms() == 2)
    life.task.cancel()
    await asyncio.gather(life.task, return_exceptions=True)


async def test_a_member_joins_once_although_its_application_asks_for_nothing_yet() -> None:
    async with joined(Coordinator(), max_poll_interval=0.0) as life:
        assert life.told[:2] == [None, [0, 1]]


@pytest.mark.parametrize("key", [JOIN, SYNC, HEARTBEAT])
async def test_an_error_that_waiting_does_not_help_ends_the_member(key: int) -> None:
    before = asyncio.all_tasks()
    coordinator = Coordinator()
    coordinator.scripts[key] = [GroupAuthorizationFailedError.errno]
    life = Life(coordinator)
    async with asyncio.timeout(FAR):
        with pytest.raises(GroupAuthorizationFailedError, match="group"):
            await life.task
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("key", [JOIN, SYNC])
async def test_a_member_whose_instance_id_another_took_logs_it_and_ends(key: int) -> None:
    coordinator = Coordinator()
    async with joined(coordinator, instance_id="worker-1") as life:
        coordinator.scripts[HEARTBEAT] = [RebalanceInProgressError.errno]
        coordinator.scripts[key] = [FencedInstanceIdError.errno]
        async with asyncio.timeout(FAR):
            with pytest.raises(FencedInstanceIdError) as raised:
                await life.task
    for said in ("'group' with the instance id 'worker-1'", "positions are kept", "Stop one of the two"):
        assert said in str(raised.value)
    shown = str(subscriber_error(raised.value, TOPIC, "group"))
    assert shown.startswith("Another member joined")
    assert "group_instance_id in kafka_options" in shown


async def test_a_group_that_may_not_be_used_is_named() -> None:
    coordinator = Coordinator()
    coordinator.refuses_lookups = True
    with pytest.raises(GroupAuthorizationFailedError, match="group"):
        await Life(coordinator).task


async def test_a_member_that_its_leader_left_out_has_no_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = Coordinator()

    async def nothing(*_: object) -> list[tuple[str, bytes]]:
        return [("member", b"")]

    monkeypatch.setattr(GroupMember, "_shares", nothing)
    async with joined(coordinator) as life:
        assert life.told == [None, []]


async def test_what_is_assigned_is_what_the_leader_decided() -> None:
    coordinator = Coordinator()
    assignment: Any = ConsumerProtocol.ASSIGNMENT(0, [(TOPIC, [1])], b"")

    async def shares(*_: object) -> Any:
        return [("member", assignment.encode())]

    async with joined(coordinator) as life:
        life.member._shares = shares  # type: ignore[method-assign]
        coordinator.scripts[HEARTBEAT] = [RebalanceInProgressError.errno]
        await coordinator.until(lambda: life.terms() == 2)
        assert life.told[-1] == [1]
