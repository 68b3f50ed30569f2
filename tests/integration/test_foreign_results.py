"""Records that somebody else wrote to the results topic: what stops a partition, and the operator's way out."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from tests.integration.test_guards import MuteResults
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment, Running, deployment
from tests.support.hostile_batches import GZIP, batch
from tests.support.raw_kafka import RawKafka
from tests.support.recovery import line, run

from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.partition.ownership import Limits
from waypost_worker.partition.ports import ResultRecord

__all__ = ["line"]
QUICK = Limits(refused_wait=0.2)
Places = set[tuple[int, int]]


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> Any:
    async with deployment(servers.endpoints, database, topic_prefix) as made:
        yield made


async def fill(here: Deployment, count: int) -> None:
    for number in range(count):
        await here.create(f"session-{number % 3}", step=number)


async def refused(here: Deployment, running: Running, offset: int | None = None) -> str:
    """Wait until an owner refuses its partition, because of the record at this offset."""

    def named() -> bool:
        said = str(running.owner.refused or "")
        return running.owner.refused is not None if offset is None else f"at offset {offset} " in said

    await here.until(named)
    return str(running.owner.refused)


async def write(here: Deployment, value: bytes | None, headers: Sequence[tuple[str, Any]] = ()) -> int:
    """Append to the results topic as a client that is no worker; the offset."""
    sent = await here.producer.send_and_wait(
        here.topics.results, value, key=b"rogue", partition=0, headers=list(headers)
    )
    return int(sent.offset)


async def copied(here: Deployment, index: int) -> int:
    """Append an exact copy of a result that is there, as a mirror that runs in a circle does."""
    found = [record for record in (await here.results())[0] if record.key is not None]
    return await write(here, found[index].value, found[index].headers)


async def forged(here: Deployment, command: int) -> int:
    """Append what looks like the result of a command."""
    body = orjson.dumps({"session_id": "s", "command": {"id": "x", "offset": command}})
    return await write(here, body, [("ce_type", EventType.CREATED.wire), ("ce_id", None)])


async def accepted(line: CommandLine, offsets: Sequence[int]) -> None:
    places = [f"0/{offset}" for offset in offsets]
    found = await run(line, "results", "foreign", "-o", "jsonl")
    assert {row["place"] for row in found.rows if row["state"] == "foreign"} >= set(places), found.out
    done = await run(line, "results", "accept", *places, "--yes")
    assert done.code == 0, done.err


async def test_an_operator_has_workers_pass_over_foreign_records(
    here: Deployment, line: CommandLine, servers: Servers
) -> None:
    owner = here.own(limits=QUICK)
    await fill(here, 5)
    await here.answered(5)
    foreign = [
        await write(here, b"not JSON"),
        await write(here, None),
        await write(here, b'{"command":{"offset":1e400}}'),
        await write(here, b'{"command":{"offset":18446744073709551615}}'),
        await write(here, b'{"command":[]}', [("ce_type", None)]),
        await copied(here, 1),
    ]
    with RawKafka(servers.endpoints.bootstrap_servers) as raw:
        broken = batch(b"no gzip stream", 2, GZIP)
        answer = await asyncio.to_thread(raw.produce, here.topics.results, 0, broken)
        if answer.error == 0:
            foreign += [answer.offset, answer.offset + 1]
    await fill(here, 1)
    said = await refused(here, owner, foreign[0])
    assert "waypost results foreign" in said
    places: Places = {(0, offset) for offset in foreign}

    # One by one the refusal moves on to the next.
    await accepted(line, foreign[:1])
    await refused(here, owner, foreign[1])
    whole = f"0/{foreign[0]}-{foreign[-1]}"
    tried = await run(line, "results", "accept", whole, "--dry-run", "-o", "jsonl")
    assert [row["place"] for row in tried.rows] == [f"0/{offset}" for offset in foreign[1:]]
    await refused(here, owner, foreign[1])
    assert (await run(line, "results", "accept", whole, "--yes")).code == 0
    await here.balanced(places)
    await fill(here, 5)
    await here.balanced(places)
    await owner.stop()

    # Behind them, and before the stored position, they are in nobody's way.
    heir = here.own(limits=QUICK)
    await fill(here, 1)
    await here.balanced(places)
    await heir.stop()
    proved = await run(line, "verify", "-o", "json")
    assert (proved.code, proved.json["differences"]) == (0, [])


async def test_foreign_records_in_the_middle_of_a_takeover(here: Deployment, line: CommandLine) -> None:
    """What two owners emitted and left, what a third must finish, and foreign records between all of it."""
    await fill(here, 5)
    first = here.own()
    await here.answered(5)
    await first.stop()
    # Back to a moment before: the tail is what lies behind, and a worker that died left an outbox.
    await here.pool.execute("update waypost.partitions set results_offset = 0, emitted = -1")
    foreign = [await write(here, b"in the tail"), await copied(here, 0), await copied(here, 4)]
    foreign.append(await forged(here, 7))
    await fill(here, 6)
    mute = replace(here.ports(), make_results=lambda: MuteResults(here.client, here.topics, 0))
    victim = here.own(ports=mute, limits=QUICK)
    await refused(here, victim)
    await accepted(line, foreign)
    await here.until(lambda: victim.told.applied_count == 6)
    await victim.crash()
    foreign.append(await write(here, b"behind its fence record"))
    foreign.append(await copied(here, 2))
    heir = here.own(limits=QUICK)
    await refused(here, heir, foreign[-2])
    foreign.append(await write(here, b"behind the heir's fence record"))
    await accepted(line, foreign[4:])
    places: Places = {(0, offset) for offset in foreign}
    await here.balanced(places)
    assert heir.told.terms[-1].reemitted == 6
    await fill(here, 3)
    await here.balanced(places)


async def test_a_forged_result_does_not_replace_pending_answers(here: Deployment, line: CommandLine) -> None:
    """It is of the last of the commands that were applied and not answered when their owner died."""
    await fill(here, 6)
    mute = replace(here.ports(), make_results=lambda: MuteResults(here.client, here.topics, 0))
    victim = here.own(ports=mute)
    await here.until(lambda: victim.told.applied_count == 6)
    await victim.crash()
    offset = await forged(here, 5)
    heir = here.own(limits=QUICK)
    said = await refused(here, heir, offset)
    assert "which no worker of this partition had" in said
    await accepted(line, [offset])
    await here.balanced({(0, offset)})
    assert heir.told.terms[-1].reemitted == 6


async def test_a_copy_of_an_answer_is_foreign_wherever_it_lies(here: Deployment, line: CommandLine) -> None:
    owner = here.own()
    await fill(here, 3)
    await here.answered(3)
    await owner.crash()
    offset = await copied(here, 2)
    heir = here.own(limits=QUICK)
    await refused(here, heir, offset)
    await accepted(line, [offset])
    await here.balanced({(0, offset)})


async def test_results_of_workers_cannot_be_accepted(here: Deployment, line: CommandLine) -> None:
    for _ in range(2):
        owner = here.own()
        await fill(here, 2)
        await here.until(lambda one=owner: one.told.emitted_count >= 2)
        await owner.stop()
    await here.pool.execute("update waypost.partitions set results_offset = 0, emitted = -1")
    listed = await run(line, "results", "foreign")
    assert (listed.code, listed.out) == (0, "")
    assert "no foreign records" in listed.err
    before = await here.pool.fetch("select * from waypost.partitions")
    for place in ("0/0", "0/1", "0/0-100", "0/100"):
        denied = await run(line, "results", "accept", place, "--yes")
        assert denied.code == 1
        assert "no foreign record" in denied.error
    assert (await run(line, "results", "accept", "1/0", "--yes")).code == 2
    assert (await run(line, "results", "accept", "0:1", "--yes")).code == 2
    assert (await run(line, "results", "accept")).code == 2
    assert await here.pool.fetch("select * from waypost.partitions") == before


async def test_another_record_at_an_accepted_offset_is_refused_again(
    here: Deployment, line: CommandLine
) -> None:
    owner = here.own(limits=QUICK)
    await fill(here, 2)
    await here.answered(2)
    offset = await write(here, b"foreign")
    await fill(here, 1)
    await refused(here, owner, offset)
    await accepted(line, [offset])
    await here.balanced({(0, offset)})
    await owner.stop()
    (row,) = await here.pool.fetch("select foreign_results from waypost.partitions")
    ((stored, digest),) = orjson.loads(row["foreign_results"])
    assert stored == offset
    other = f"{int(digest, 16) ^ 1:032x}"
    await here.pool.execute(
        "update waypost.partitions set foreign_results = $1, results_offset = 0, emitted = -1",
        orjson.dumps([[offset, other]]),
    )
    await refused(here, here.own(limits=QUICK), offset)


async def test_a_replay_and_a_rebuild_pass_over_what_was_accepted(
    here: Deployment, line: CommandLine
) -> None:
    owner = here.own(limits=QUICK)
    await fill(here, 4)
    await here.answered(4)
    foreign = [await write(here, b"foreign"), await copied(here, 1)]
    await fill(here, 4)
    await refused(here, owner, foreign[0])
    await accepted(line, foreign)
    await here.balanced({(0, offset) for offset in foreign})
    foreign.append(await write(here, b"the last record"))
    await owner.stop()
    for schema, how in (("again", ()), ("rebuilt", ("--from-results",))):
        flags = ("--schema", schema)
        assert (await run(line, "migrate", *flags)).code == 0
        stopped = await run(line, "replay", *how, *flags)
        assert stopped.code != 0
        places = [f"0/{offset}" for offset in foreign]
        assert (await run(line, "results", "accept", *places, "--yes", *flags)).code == 0
        done = await run(line, "replay", *how, *flags)
        assert done.code == 0, done.err
        assert (await run(line, "verify", *flags)).code == 0


async def test_an_acceptance_ends_the_term_of_an_owner_that_does_not_know_it(
    here: Deployment, line: CommandLine
) -> None:
    """Two owners never count the same results differently: the one that read them before commits nothing more."""

    class Slow(KafkaResultsLog):
        async def append(self, records: Sequence[ResultRecord]) -> int:
            if dict(records[0].headers).get("ce_type") != EventType.ACQUIRED.wire:
                await going.wait()
            return await super().append(records)

    going = asyncio.Event()
    going.set()
    slow = replace(here.ports(), make_results=lambda: Slow(here.client, here.topics, 0))
    owner = here.own(ports=slow, limits=QUICK)
    await fill(here, 2)
    await here.answered(2)
    terms = len(owner.told.terms)
    offset = await write(here, b"foreign")
    await accepted(line, [offset])
    await fill(here, 1)
    await here.until(lambda: len(owner.told.terms) > terms)
    await here.balanced({(0, offset)})
