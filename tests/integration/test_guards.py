"""Every guard of the protocol, triggered once on real servers: what it notices, and that nothing is lost.

Each test breaks one thing under an owner, then folds the command topic and compares with Postgres and results.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewPartitions
from tests.integration.guards import acquired_record, admin, append_foreign, dump, restore, trim
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

from waypost.wire.envelope import KafkaRecord
from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers
from waypost_worker.kafka import fenced_producer, fencing_check, results_log
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.kafka.topics import create_topics, delete_topic
from waypost_worker.partition.ownership import Limits
from waypost_worker.partition.ports import (
    Fence,
    FencedError,
    ForeignWriterError,
    RefusedError,
    RenewalDueError,
    ResultRecord,
    StuckError,
    UnavailableError,
)
from waypost_worker.runtime.clock import SystemClock

QUICK = Limits(refused_wait=0.2)


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix) as made:
        yield made


async def fill(here: Deployment, count: int) -> None:
    for number in range(count):
        await here.create(f"session-{number % 3}", step=number)


class MuteResults(KafkaResultsLog):
    """Appends the fence record and nothing after it, as a process does that dies before it emits."""

    async def append(self, records: Sequence[ResultRecord]) -> int:
        if dict(records[0].headers).get("ce_type") != EventType.ACQUIRED.wire:
            await asyncio.Event().wait()
        return await super().append(records)


async def commit_without_emitting(here: Deployment, count: int) -> None:
    await fill(here, count)
    mute = replace(here.ports(), make_results=lambda: MuteResults(here.client, here.topics, 0))
    victim = here.own(ports=mute)
    await here.until(lambda: victim.told.applied_count == count)
    await victim.crash()


async def refusal(here: Deployment, running: Any) -> str:
    await here.until(lambda: running.owner.refused is not None)
    return str(running.owner.refused)


class JumpingClock(SystemClock):
    """Boot time that a test can move on, as a suspended machine does; notes what is slept."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.slept: list[float] = []

    def boottime(self) -> float:
        return super().boottime() + self.ahead

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(min(seconds, 0.2))


# An older owner.


async def test_two_owners_that_fight_over_a_partition_never_lose_or_double(here: Deployment) -> None:
    first, second = here.own(), here.own()
    for number in range(150):
        await here.create(f"session-{number % 3}", step=number)
    await here.answered(150)
    await first.stop()
    await second.stop()
    fenced_terms = first.told.errors(FencedError) + second.told.errors(FencedError)
    assert fenced_terms, "they never met, so nothing was tested"
    await here.balanced()


async def test_a_crash_between_commit_and_emission_is_finished_from_the_outbox(here: Deployment) -> None:
    await commit_without_emitting(here, 20)
    heir = here.own()
    await here.balanced()
    await here.until(lambda: bool(heir.told.terms))
    assert heir.told.terms[0].reemitted > 0


async def test_a_new_producer_id_waits_out_what_the_old_one_may_have_under_way(here: Deployment) -> None:
    await fill(here, 3)
    first = here.own()
    await here.answered(3)
    await first.stop()
    # As if the transactional id had expired: the id that is stored is not the one that comes back.
    await here.pool.execute("update waypost.partitions set producer_id = producer_id + 1000")
    clock = JumpingClock()
    second = here.own(ports=replace(here.ports(), clock=clock))
    await fill(here, 3)
    await here.answered(6)
    waited = KafkaResultsLog(here.client, here.topics, 0).unanswered_append_seconds
    assert waited >= here.connection.request_timeout
    assert waited in clock.slept
    await second.stop()
    await here.balanced()


async def test_a_term_is_renewed_before_anything_can_expire(here: Deployment) -> None:
    clock = JumpingClock()
    running = here.own(ports=replace(here.ports(), clock=clock))
    await fill(here, 3)
    await here.answered(3)
    clock.ahead = 12 * 3600 + 1
    await here.until(lambda: len(running.told.terms) == 2)
    await fill(here, 3)
    await here.answered(6)
    assert running.told.ends == [None], "a renewal is no failure"
    epochs = [term.position.epoch for term in running.told.terms]
    assert epochs == sorted(set(epochs))
    await here.balanced()


async def test_an_owner_that_slept_does_not_append_on_an_old_proof(here: Deployment) -> None:
    clock = JumpingClock()
    running = here.own(ports=replace(here.ports(), clock=clock))
    await here.until(lambda: bool(running.told.terms))

    def sleep_now() -> None:  # between the commit and the append
        clock.ahead += 301
        running.told.hooks.clear()

    running.told.hooks.append(sleep_now)
    await fill(here, 5)
    await here.answered(5)
    assert running.told.errors(RenewalDueError)
    await here.balanced()


async def test_sequence_numbers_are_renewed_long_before_they_wrap(
    here: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fenced_producer, "LAST_SEQUENCE", 10)
    running = here.own(limits=Limits(batch_records=4))
    await fill(here, 40)
    await here.answered(40)
    assert len(running.told.terms) > 1
    await here.balanced()


async def test_an_epoch_that_is_given_twice_fences_nothing_and_is_claimed_again(
    here: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a transaction coordinator that lost its last write in an unclean election."""
    given: list[Fence] = []

    async def claim_with_a_lost_write(*arguments: Any) -> Fence:
        given.append(given[0] if len(given) == 1 else await fenced_producer.claim_epoch(*arguments))
        return given[-1]

    monkeypatch.setattr(results_log, "claim_epoch", claim_with_a_lost_write)
    owner = here.own()
    for number in range(3):
        await here.create("session", step=number)
        await here.answered(number + 1)
    await owner.crash()
    heir = here.own()
    await here.create("session", step=3)
    await here.answered(4)
    assert given[0] == given[1] != given[2]
    assert [type(why) for why in heir.told.ends] == [UnavailableError]
    assert "also assigned to another worker" in str(heir.told.ends[0])
    await here.balanced()


# A cluster or topic that is not what it was.


async def test_a_cluster_that_does_not_fence_is_found_out(
    here: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await fencing_check.zombie_test(here.connection, here.topics)).fenced
    ids = iter(range(50_000, 60_000))

    async def unrelated_ids(*_: Any) -> Fence:  # as on a broker whose epochs fence nothing
        return Fence(next(ids), 0)

    monkeypatch.setattr(fencing_check, "claim_epoch", unrelated_ids)
    verdict = await fencing_check.zombie_test(here.connection, here.topics)
    assert not verdict.fenced
    assert "Do not run workers on it" in verdict.message


async def test_added_partitions_are_refused(here: Deployment) -> None:
    await fill(here, 3)
    first = here.own()
    await here.answered(3)
    await first.stop()
    await admin(here, lambda client: client.create_partitions({here.topics.commands: NewPartitions(2)}))
    message = await refusal(here, here.own(limits=QUICK))
    assert "partitions" in message
    assert "Nothing was changed" in message


async def test_a_recreated_topic_is_refused_however_long_it_is(here: Deployment) -> None:
    await fill(here, 5)
    first = here.own()
    await here.answered(5)
    await first.stop()
    await delete_topic(here.connection, here.topics.commands)

    async def made() -> bool:
        return bool(await create_topics(here.connection, here.topics, 1))

    await here.until(made)
    shorter = here.own(limits=QUICK)
    assert "recreated" in await refusal(here, shorter)
    await shorter.crash()
    await fill(here, 9)
    assert "is not the one that Postgres applied" in await refusal(here, here.own(limits=QUICK))


async def test_a_log_trimmed_past_the_position_is_refused_and_names_the_way_out(here: Deployment) -> None:
    await fill(here, 5)
    first = here.own()
    await here.answered(5)
    await first.stop()
    await fill(here, 5)
    await trim(here, here.topics.commands, 8)
    message = await refusal(here, here.own(limits=QUICK))
    assert "removed 3 offsets before they were applied" in message
    assert "waypost replay" in message


async def test_a_log_trimmed_up_to_the_position_is_fine(here: Deployment) -> None:
    await fill(here, 5)
    first = here.own()
    await here.answered(5)
    await first.stop()
    await trim(here, here.topics.commands, 5)
    second = here.own()
    await here.create("session-0", after="the trim")
    await here.answered(6)
    await second.stop()


async def test_results_trimmed_before_they_were_checked_need_the_operators_word(here: Deployment) -> None:
    await commit_without_emitting(here, 5)
    # Fence records of owners that came to nothing lie behind the stored position; retention takes them.
    await append_foreign(here, acquired_record(here), count=3)
    await trim(here, here.topics.results, 3)
    refused = here.own(limits=QUICK)
    assert "WAYPOST_ACCEPT_TRIMMED_RESULTS" in await refusal(here, refused)
    await refused.crash()  # its next attempts would fence the heir, perhaps just as it has emitted
    heir = here.own(limits=replace(QUICK, accept_trimmed_results=True))
    await here.answered(5)
    await here.until(lambda: bool(heir.told.terms))
    assert heir.told.terms[0].reemitted > 0


async def test_results_of_somebody_else_stop_the_partition_until_a_person_looks(here: Deployment) -> None:
    running = here.own(limits=QUICK)
    await fill(here, 3)
    await here.answered(3)
    await append_foreign(here, ResultRecord(None, b"not ours", []))
    await fill(here, 1)
    assert "is not a result of this service" in await refusal(here, running)
    assert running.told.errors(ForeignWriterError) or running.told.errors(RefusedError)


async def test_a_foreign_record_is_noticed_by_the_offset_of_the_next_append(here: Deployment) -> None:
    running = here.own()
    await fill(here, 3)
    await here.answered(3)
    await append_foreign(here, acquired_record(here))  # harmless in itself, but not this owner's
    await fill(here, 3)
    await here.answered(6)
    assert running.told.errors(ForeignWriterError)
    await here.balanced()


# Postgres that is not what it was.


async def test_postgres_restored_to_an_earlier_moment_catches_up_without_a_repeated_result(
    here: Deployment, servers: Servers
) -> None:
    await fill(here, 10)
    first = here.own()
    await here.answered(10)
    await first.stop()
    rows = await here.pool.fetch("select * from waypost.partitions")
    backup = await dump(here)
    second = here.own()
    await fill(here, 25)
    await here.answered(35)
    await second.stop()
    await restore(here, backup)
    assert (await here.pool.fetch("select * from waypost.partitions")) == rows
    third = here.own()
    await here.create("session-1", step="after the restore")
    await here.answered(36)
    await third.stop()
    await here.balanced()


async def test_a_log_that_contradicts_the_emitted_results_is_refused(here: Deployment) -> None:
    await fill(here, 4)
    first = here.own()
    await here.answered(4)
    backup = await dump(here)
    await fill(here, 4)
    await here.answered(8)
    await first.stop()
    await restore(here, backup)
    # The stored state is changed, so the replayed commands give other results than those in the topic.
    await here.pool.execute("update waypost.sessions set counter = counter + 7")
    message = await refusal(here, here.own(limits=QUICK))
    assert "differs from what the command log gives now" in message


async def test_a_commit_whose_reply_is_lost_counts_once(here: Deployment) -> None:
    ports = here.ports()
    commit = ports.store.commit
    lost = []

    async def commit_and_lose_the_reply(batch: Any) -> None:
        await commit(batch)
        if len(lost) < 3:
            lost.append(batch)
            raise UnavailableError("the reply was lost")

    ports.store.commit = commit_and_lose_the_reply  # type: ignore[method-assign]
    here.own(ports=ports)
    await fill(here, 12)
    await here.balanced()
    assert lost


async def test_killed_postgres_connections_only_delay(here: Deployment, servers: Servers) -> None:
    running = here.own()
    await fill(here, 5)
    await here.answered(5)
    admin_pool = here.pool
    await admin_pool.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
        "and datname = current_database()"
    )
    await fill(here, 5)
    await here.balanced()
    assert not running.task.done()


# A consumer that gives nothing.


class StuckLog(KafkaCommandLog):
    """The known failure of Kafka clients: connected, without an error, and without records."""

    async def fetch(self, most: int) -> Sequence[KafkaRecord]:
        await asyncio.sleep(0.01)
        return []


async def test_a_stuck_consumer_is_replaced_and_the_worker_gives_up_after_the_second_time(
    here: Deployment,
) -> None:
    await fill(here, 3)
    stuck = replace(here.ports(), make_log=lambda: StuckLog(here.client, here.topics.commands, 0))
    running = here.own(ports=stuck, limits=Limits(stuck_after=0.1))
    with pytest.raises(StuckError, match="the log has records from 0 on"):
        await asyncio.wait_for(asyncio.shield(running.task), PATIENCE)
    assert len(running.told.errors(StuckError)) == 2


async def test_an_aborted_transaction_at_the_end_of_the_log_is_not_taken_for_a_stuck_consumer(
    here: Deployment,
) -> None:
    running = here.own(limits=Limits(stuck_after=0.1))
    await fill(here, 2)
    await here.answered(2)
    producer = AIOKafkaProducer(
        bootstrap_servers=here.endpoints.bootstrap_servers, transactional_id=f"{here.topics.prefix}-agent"
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(here.topics.commands, b"never", partition=0)
        await producer.abort_transaction()
    finally:
        await producer.stop()
    fetched = SystemClock().boottime()
    await here.until(lambda: SystemClock().boottime() - fetched > 3)
    assert not running.told.ends
    await here.create("session-0", after="the abort")
    await here.answered(3)
