"""``waypost replay``: what it rebuilds is what the workers had, it can be killed, and it refuses before it touches."""

import asyncio
import signal
import socket
import urllib.request
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families
from tests.oracle.books import read_all
from tests.support.cli import CommandLine
from tests.support.database_state import state_hash
from tests.support.deployment import Deployment
from tests.support.recovery import PARTITIONS, execute, line, live, published, run, worked
from tests.support.timeouts import PATIENCE

from waypost.model.times import format_micros
from waypost.wire.event_types import EventType
from waypost_worker.kafka.topics import create_topics

__all__ = ["line", "live"]

COUNT = 1500


async def test_a_replay_is_the_same_database_by_hash(live: Deployment, line: CommandLine) -> None:
    await worked(live)
    plan = await run(line, "replay", "--schema", "side", "--dry-run", "-o", "json")
    assert plan.code == 0
    assert sum(row["commands"] for row in plan.json) == COUNT
    assert sum(row["owed"] for row in plan.json) == 0
    missing = await run(line, "session", "list", "--schema", "side")
    assert missing.code == 1, "a dry run leaves nothing behind"

    replayed = await run(line, "replay", "--schema", "side", "-o", "json")
    assert replayed.code == 0, replayed.err
    assert sum(row["compared"] for row in replayed.json) == COUNT
    assert {row["owed"] for row in replayed.json} == {0}
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn)
    again = await run(line, "replay", "--schema", "side", "-o", "json")
    assert again.code == 0
    assert sum(row["commands"] for row in again.json) == 0
    listed = await run(line, "session", "list", "-o", "json", "--schema", "side")
    assert listed.json == (await run(line, "session", "list", "-o", "json")).json


SLOW = """
create function public.slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.005); return new; end $$;
create trigger slow before insert on side.checkpoints for each row execute function public.slow();
"""


async def test_a_replay_makes_batches_smaller_that_postgres_cannot_finish_in_time(
    live: Deployment, line: CommandLine
) -> None:
    await worked(live, count=600)
    assert (await run(line, "migrate", "--schema", "side")).code == 0
    await execute(live.dsn, SLOW)
    limited = f"{live.dsn}?statement_timeout=200"
    replayed = await run(line, "replay", "--schema", "side", "--postgres-dsn", limited, "-o", "json")
    assert replayed.code == 0, replayed.err
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn)


async def test_a_replay_survives_sigkill(live: Deployment, line: CommandLine) -> None:
    await worked(live, seed=2, count=3000)
    for _ in range(2):
        started = line.start("replay", "--schema", "side", "--batch-records", "20")
        await asyncio.to_thread(started.until, "replay: ")
        await asyncio.to_thread(started.stop, signal.SIGKILL)
        half = await state_hash(live.dsn, "side")
        assert half != await state_hash(live.dsn), "it was killed in the middle"
    replayed = await run(line, "replay", "--schema", "side", "-o", "json")
    assert replayed.code == 0, replayed.err
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn)


async def test_several_processes_share_the_partitions_and_end_with_their_parent(
    live: Deployment, line: CommandLine
) -> None:
    await worked(live, count=900)
    flags = ("--schema", "side", "--processes", "2")
    started = line.start("replay", *flags, "--batch-records", "10")
    await asyncio.to_thread(started.until, "replay: ")
    await asyncio.to_thread(started.stop, signal.SIGKILL)
    replayed = await run(line, "replay", *flags, "-o", "json")
    assert replayed.code == 0, replayed.err
    assert [row["partition"] for row in replayed.json] == list(range(PARTITIONS))
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn)


async def test_workers_continue_with_a_rebuilt_database_and_emit_pending_results(
    live: Deployment, line: CommandLine
) -> None:
    await worked(live, count=400)
    before = {partition: len(records) for partition, records in (await live.results()).items()}
    # Published, and neither applied nor answered when Postgres was lost.
    late = await published(live, seed=9, count=200)
    await execute(live.dsn, "drop schema waypost cascade")
    replayed = await run(line, "replay", "-o", "json")
    assert replayed.code == 0, replayed.err
    assert sum(row["owed"] for row in replayed.json) == late
    assert f"{late} results were never emitted" in replayed.err
    assert {partition: len(records) for partition, records in (await live.results()).items()} == before
    for partition in range(PARTITIONS):
        live.own(partition)
    await live.balanced()


async def test_results_go_to_another_topic_once_even_after_sigkill(
    live: Deployment, line: CommandLine
) -> None:
    await worked(live, count=600)
    other = f"{live.topics.prefix}-copy.results"
    started = line.start("replay", "--schema", "side", "--emit-to", other)
    await asyncio.to_thread(started.until, "replay: ")
    await asyncio.to_thread(started.stop, signal.SIGKILL)
    first = await run(line, "replay", "--schema", "side", "--emit-to", other, "-o", "json")
    assert first.code == 0, first.err
    again = await run(line, "replay", "--schema", "side", "--emit-to", other, "-o", "json")
    assert again.code == 0, again.err
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn)

    def said(records: dict[int, list[Any]]) -> dict[int, list[tuple[bytes, bytes]]]:
        return {
            partition: [
                (dict(one.headers)["ce_type"], one.value)
                for one in found
                if dict(one.headers)["ce_type"] != EventType.ACQUIRED.wire
            ]
            for partition, found in records.items()
        }

    assert said(await read_all(live.endpoints, other)) == said(await live.results())
    same = await run(line, "replay", "--schema", "side", "--emit-to", live.topics.results)
    assert same.code == 2
    # A database of workers, or of a plain replay, keeps its own results position.
    for flags, said in (
        (("--emit-to", other), "was not made by a replay with --emit-to"),
        (("--schema", "side"), "was made by a replay that emits to"),
        (("--schema", "side", "--emit-to", f"x-{other}"), "was made by a replay that emits to"),
    ):
        refused = await run(line, "replay", *flags)
        assert (refused.code, said in refused.error) == (1, True), refused


# Time travel.


async def test_up_to_a_checkpoint_an_offset_and_a_time(live: Deployment, line: CommandLine) -> None:
    (mine, yours), (other,) = live.sessions(0, 2), live.sessions(1, 1)
    await live.create(mine, "first")
    await live.create(other, "before")
    offset = await live.create(mine, "second")
    await live.create(mine, "third")
    await live.create(yours, "later")
    for partition in range(PARTITIONS):
        live.own(partition)
    await live.answered(5)

    async def names(schema: str, session: str) -> list[str]:
        shown = await run(line, "session", "export", session, "--schema", schema)
        return [one["name"] for one in orjson.loads(shown.out)]

    by_checkpoint = await run(line, "replay", "--schema", "a", "--until-checkpoint", f"{mine}:2")
    assert by_checkpoint.code == 0, by_checkpoint.err
    assert await names("a", mine) == ["first", "second"]
    assert await names("a", other) == ["before"]
    by_offset = await run(line, "replay", "--schema", "b", "--until-offset", f"0/{offset}")
    assert by_offset.code == 0, by_offset.err
    assert await state_hash(live.dsn, "a") == await state_hash(live.dsn, "b")
    records = (await read_all(live.endpoints, live.topics.commands))[0]
    after = records[offset].timestamp + 1
    by_time = await run(line, "replay", "--schema", "c", "--until-time", format_micros(after * 1000))
    assert by_time.code == 0, by_time.err
    assert (await names("c", mine))[:2] == ["first", "second"]
    # A side schema can travel on, and not back.
    assert (await run(line, "replay", "--schema", "a")).code == 0
    assert await state_hash(live.dsn, "a") == await state_hash(live.dsn)
    back = await run(line, "replay", "--schema", "a", "--until-offset", f"0/{offset}")
    assert (back.code, "goes forward only" in back.error) == (1, True)


# Refusals: a clear line, and nothing touched.


async def test_a_log_that_cannot_be_replayed_is_refused_and_nothing_is_touched(
    live: Deployment, line: CommandLine
) -> None:
    await worked(live, count=100)
    session = live.sessions(0, 1)[0]
    cases: list[tuple[list[str], int, str]] = [
        (["--topic-prefix", "no-such"], 1, "'no-such.commands' does not exist"),
        (["--until-offset", "0/999999"], 1, "no command is at offset 999999 of partition 0"),
        (["--until-offset", "7/0"], 1, "there is no partition 7"),
        (["--until-offset", "seven"], 2, "is not partition/offset"),
        (["--until-checkpoint", f"{session}:12345"], 1, "the log never created a checkpoint"),
        (["--until-checkpoint", "nonsense"], 1, "is not a checkpoint id"),
        (["--until-time", "yesterday"], 2, "--until-time"),
        (["--until-time", "2026-11-24T09:00:00Z", "--until-offset", "0/0"], 2, "pass one of"),
        (["--emit-to", "elsewhere"], 2, "must end in .results"),
        (["--onto-backup"], 1, "no backup to continue"),
        (["--from-results", "--no-compare"], 2, "--from-results goes with"),
        (["--from-results", "--topic-prefix", "no-such"], 1, "'no-such.results' does not exist"),
    ]
    for arguments, code, said in cases:
        refused = await run(line, "replay", "--schema", "side", *arguments)
        assert (refused.code, refused.out) == (code, ""), arguments
        assert said in refused.error, arguments
    assert (await run(line, "session", "list", "--schema", "side")).code == 1
    before = await state_hash(live.dsn)
    worked_on = await run(line, "replay")
    assert (worked_on.code, "workers have worked on" in worked_on.error) == (1, True)
    assert await state_hash(live.dsn) == before


async def test_a_target_of_another_log_is_refused(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=300)
    assert (await run(line, "replay", "--schema", "side")).code == 0
    before = await state_hash(live.dsn, "side")
    other = type(live.topics)(f"{live.topics.prefix}-other")
    await create_topics(live.connection, other, PARTITIONS)
    await published(live, seed=5, count=900, topic=other.commands)
    flags = ("--schema", "side", "--topic-prefix", other.prefix)
    refused = await run(line, "replay", *flags)
    assert (refused.code, "is not the one that Postgres applied" in refused.error) == (1, True)
    fewer = type(live.topics)(f"{live.topics.prefix}-fewer")
    await create_topics(live.connection, fewer, 2)
    refused = await run(line, "replay", "--schema", "side", "--topic-prefix", fewer.prefix)
    assert (refused.code, "was created for 3 partitions" in refused.error) == (1, True)
    await execute(live.dsn, "create schema foreign_one", "create table foreign_one.mine (a int)")
    refused = await run(line, "replay", "--schema", "foreign_one")
    assert (refused.code, "tables that are not Waypost's" in refused.error) == (1, True)
    await execute(live.dsn, "delete from side.partitions")
    refused = await run(line, "replay", "--schema", "side")
    assert (refused.code, "no position in any log" in refused.error) == (1, True)
    await execute(
        live.dsn,
        "update side.migrations set number = 9999 where number = (select max(number) from side.migrations)",
    )
    refused = await run(line, "replay", "--schema", "side")
    assert (refused.code, "migrated by a newer Waypost" in refused.error) == (1, True)
    assert {k: v for k, v in (await state_hash(live.dsn, "side")).items() if k != "partitions"} == {
        k: v for k, v in before.items() if k != "partitions"
    }


async def test_progress_can_be_scraped_while_it_works(live: Deployment, line: CommandLine) -> None:
    await worked(live, seed=3, count=2000)
    flags = ("--schema", "side", "--batch-records", "10", "--metrics-port", "0", "-o", "json")
    started = line.start("replay", *flags)
    told = await asyncio.to_thread(started.until, "metrics at ")
    address = told.split()[-1]
    seen: list[dict[tuple[str, ...], float]] = []

    async def under_way() -> bool:
        seen.append(await asyncio.to_thread(scrape, address))
        return sum(value for key, value in seen[-1].items() if key[0] == "waypost_recovery_records_total") > 0

    await live.until(under_way)
    assert seen[-1]["waypost_recovery_planned_records", "replay"] == 2000
    assert not any(key[0] == "waypost_build_info" for key in seen[-1])
    ended = await asyncio.to_thread(started.wait)
    assert ended.code == 0
    assert sum(row["commands"] for row in ended.json) == 2000
    taken = await run(line, "verify", "--metrics-port", address.rpartition(":")[2].partition("/")[0])
    assert taken.code == 0, taken.err
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        refused = await run(line, "verify", "--metrics-port", str(occupied.getsockname()[1]))
    assert (refused.code, "see --metrics-port" in refused.error) == (2, True)


def scrape(address: str) -> dict[tuple[str, ...], float]:
    """Value by name and label values, in order of the labels' names."""
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }
