"""What a replay makes of the results topic: whole, cut by retention, with a hole, or with something else in it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.support.cli import CommandLine
from tests.support.database_state import state_hash
from tests.support.deployment import Deployment
from tests.support.recovery import PARTITIONS, line, live, run, worked

from waypost_worker.kafka.topics import create_results_topic, delete_topic
from waypost_worker.partition.ports import UnavailableError

__all__ = ["line", "live"]


async def trim(live: Deployment, before: int) -> None:
    """What retention does to the results topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=live.endpoints.bootstrap_servers)
    await admin.start()
    partitions = [TopicPartition(live.topics.results, partition) for partition in range(PARTITIONS)]
    await admin.delete_records(dict.fromkeys(partitions, RecordsToDelete(before)))
    await admin.close()


async def rewritten(live: Deployment, change: Callable[[list[Any]], list[Any]]) -> None:
    """The results topic anew, with what ``change`` makes of the results of partition 0."""
    results = await live.results()
    await delete_topic(live.connection, live.topics.results)

    async def made() -> bool:
        try:
            return await create_results_topic(live.connection, live.topics, PARTITIONS)
        except UnavailableError:
            return False  # the old one is still on its way out

    await live.until(made)
    for partition, records in results.items():
        for one in change(records) if partition == 0 else records:
            await live.producer.send_and_wait(
                live.topics.results, one.value, key=one.key, headers=list(one.headers), partition=partition
            )


async def six(live: Deployment) -> None:
    """Six creates of one session of partition 0, answered."""
    session = live.sessions(0, 1)[0]
    for number in range(6):
        await live.create(session, f"n{number}", answer=40 + number)
    owners = [live.own(partition) for partition in range(PARTITIONS)]
    await live.answered(6)
    for owner in owners:
        await owner.stop()


async def test_results_that_retention_removed_are_neither_compared_nor_emitted(
    live: Deployment, line: CommandLine
) -> None:
    await worked(live, count=600)
    await trim(live, 50)
    replayed = await run(line, "replay", "--schema", "side", "-o", "json")
    assert replayed.code == 0, replayed.err
    # The first record is the fence of the owner that came first.
    assert sum(row["compared"] for row in replayed.json) == 600 - 49 * PARTITIONS
    assert {row["owed"] for row in replayed.json} == {0}
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn)


async def test_if_all_results_are_gone_an_operator_must_accept_it(
    live: Deployment, line: CommandLine
) -> None:
    await worked(live, count=200)
    await trim(live, -1)
    refused = await run(line, "replay", "--schema", "side")
    assert (refused.code, "WAYPOST_ACCEPT_TRIMMED_RESULTS=true" in refused.error) == (1, True)
    assert (await run(line, "session", "list", "--schema", "side")).code == 1, "the target is untouched"
    accepting = CommandLine(line.directory, {**line.settings, "WAYPOST_ACCEPT_TRIMMED_RESULTS": "true"})
    replayed = await run(accepting, "replay", "--schema", "side", "-o", "json")
    assert replayed.code == 0, replayed.err
    assert {row["owed"] for row in replayed.json} == {0}
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn)


async def test_the_first_result_that_differs_is_shown(live: Deployment, line: CommandLine) -> None:
    await six(live)

    def another_answer(records: list[Any]) -> list[Any]:
        return [replace(one, value=one.value.replace(b'"answer":42', b'"answer":43')) for one in records]

    await rewritten(live, another_answer)
    differs = await run(line, "replay", "--schema", "side")
    assert differs.code == 1
    said = " ".join(differs.err.split())
    assert (
        "the result of command 2 (at offset 3 of the results topic) is not what the command log gives" in said
    )
    assert "at checkpoint.data.answer, the topic has 43 and the log 42" in said
    regardless = await run(line, "replay", "--schema", "side", "--no-compare")
    assert regardless.code == 0, regardless.err
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn)


async def test_a_hole_in_the_results_is_found(live: Deployment, line: CommandLine) -> None:
    await six(live)
    await rewritten(live, lambda records: records[:3] + records[4:])
    differs = await run(line, "replay", "--schema", "side")
    assert (differs.code, "the results topic has no result of command 2" in differs.err) == (1, True)


async def test_a_result_of_no_command_is_found(live: Deployment, line: CommandLine) -> None:
    await six(live)

    def one_twice(records: list[Any]) -> list[Any]:
        return [*records[:4], records[3], *records[4:]]

    await rewritten(live, one_twice)
    differs = await run(line, "replay", "--schema", "side")
    assert (differs.code, "the results topic has a result of command 2" in differs.err) == (1, True)
