"""What docs/runbook.md says to do when an owner fails by a bug, or when a client's open transaction is in the way: seen
end to end on a real worker, in its probes, metrics, alerts and log.
"""

import asyncio
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from tests.drills.runbook import calm, here, raised, walking
from tests.integration.test_worker_process import publish
from tests.integration.watched import FINDING_TESTS, Watched, ok
from tests.support.cli import CommandLine, Outcome
from tests.support.database_state import state_hash
from tests.support.deployment import Deployment

__all__ = ["here"]

Values = dict[tuple[str, ...], float]


class Sabotaged(Watched):
    """A worker with a bug on purpose."""

    def __init__(self, here: Deployment, log: Path, sabotage: str) -> None:
        super().__init__(here, log, **FINDING_TESTS)
        counts = str(log.with_suffix(".counts"))
        self.command = (
            *(sys.executable, "-m", "tests.faults.worker"),
            *("--counts", counts, "--sabotage", sabotage, "--refused-wait", "3"),
        )

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]


def partitions(found: Values) -> tuple[float, ...]:
    """How many are assigned, owned, refused and failing."""
    return tuple(
        found.get((f"waypost_{kind}_partitions",), -1) for kind in ("assigned", "owned", "refused", "failing")
    )


async def test_a_command_with_a_bug_is_named_and_a_version_without_the_bug_continues(
    here: Deployment, tmp_path: Path
) -> None:
    """The decoder fails at one command of partition 0, among others of the same batch."""
    (poisoned,), (well,) = here.sessions(0, 1), here.sessions(1, 1)
    for number in range(20):
        await here.create(poisoned, step=number)
        await here.create(well, step=number)
    bad = await here.create(poisoned, word="poison")
    for number in range(5):
        await here.create(poisoned, step=number)
    worker = Sabotaged(here, tmp_path / "log", "fail-at-poison")
    walk = walking(here, tmp_path, "WaypostPartitionRefused", 6, worker=worker)
    await worker.start()
    await worker.shows(
        lambda found: (
            partitions(found) == (2, 1, 1, 0)
            and found.get(("waypost_refused_offset", "0")) == bad
            and found.get(("waypost_lag_commands", "0")) == 6
            and found.get(("waypost_lag_commands", "1")) == 0
        )
    )
    found = await worker.metrics()
    assert found["waypost_terms_ended_total", "error"] >= 3
    assert found["waypost_terms_ended_total", "refused"] >= 1
    # All that came before the command is answered, and the other partition goes on.
    await here.answered(40)
    await here.create(well, step=20)
    await here.answered(41)
    status, body = await worker.get("/readyz")
    assert status == 503
    said = json.loads(body)["partitions"]
    assert said.startswith(
        f"partition 0: refused: The command at offset {bad} of partition 0 makes its owner fail:"
    )
    assert "TypeError at tests.faults.worker" not in said
    assert "TypeError at waypost_worker.partition.skips:" in said
    assert (await worker.get("/livez"))[0] == 200
    (refused, *_) = worker.lines("partition_refused")
    assert (refused["partition"], refused["offset"]) == (0, bad)
    failed = worker.lines("owner_failed")
    assert len(failed) == 1
    assert "TypeError: a bug on purpose" in failed[0]["exception"]
    assert await raised(tmp_path, worker) == {"WaypostPartitionRefused", "WaypostNoProgress"}
    assert f" {float(bad)}" in await walk.step()
    await walk.rest()
    assert walk.worker is not None
    await walk.worker.answers("/readyz", ok)
    await here.balanced()
    await calm(here, tmp_path, walk.worker)


async def test_a_command_with_a_bug_is_skipped_by_the_authority(here: Deployment, tmp_path: Path) -> None:
    """The partition continues with the same worker, and a replay and a verification come to the same."""
    (poisoned,), (well,) = here.sessions(0, 1), here.sessions(1, 1)
    worker = Sabotaged(here, tmp_path / "log", "fail-at-poison")
    await worker.start()
    line = CommandLine(
        tmp_path,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": here.endpoints.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": here.dsn,
            "WAYPOST_TOPIC_PREFIX": here.topics.prefix,
        },
    )

    async def run(*arguments: str) -> Outcome:
        return await asyncio.to_thread(line.run, *arguments)

    assert (await run("authority", "create-key", "authority.pem")).code == 0
    named = await run("authority", "set", "authority.pem", "--timeout", "60")
    assert named.code == 0, named
    for number in range(20):
        await here.create(poisoned, step=number)
    innocent = await here.create(well, step=0)
    order = ("commands", "skip", "0", "--reason", "a bug", "--authority-key", "authority.pem")
    early = await run(*order[:3], str(innocent + 3), *order[3:])
    assert (early.code, "Nothing was changed" in early.error) == (1, True)
    bad = await here.create(poisoned, word="poison")
    for number in range(5):
        await here.create(poisoned, step=number)
    await worker.shows(lambda found: found.get(("waypost_refused_offset", "0")) == bad)
    other = await run(*order[:3], str(bad + 1), *order[3:])
    assert f"is refused at offset {bad}, not at {bad + 1}" in other.error
    walk = walking(
        here,
        tmp_path,
        "WaypostPartitionRefused",
        8,
        worker=worker,
        values={"3 1841": f"0 {bad}", "3/1841": f"0/{bad}"},
    )
    shown = await walk.step()
    assert "skipped" in shown
    assert "bug 77" in await walk.step()
    await worker.shows(lambda found: partitions(found) == (2, 2, 0, 0))
    await worker.answers("/readyz", ok)
    await here.create(poisoned, step=99)
    await here.balanced()
    again = await run(*order[:3], str(bad), *order[3:])
    assert (again.code, "has applied all commands" in again.error) == (1, True)
    assert (await run("verify", "--strict", "-o", "json")).code == 0
    replayed = await run("replay", "--schema", "again", "-o", "json")
    assert replayed.code == 0, replayed
    assert (await run("verify", "--schema", "again", "--strict", "-o", "json")).code == 0
    assert await state_hash(here.dsn) == await state_hash(here.dsn, "again")


async def test_a_worker_that_fails_whenever_it_acquires_is_seen_and_replaced(
    here: Deployment, tmp_path: Path
) -> None:
    """No position is known there; lag counts from the group's offsets, or from the beginning."""
    await publish(here, 20)
    worker = Sabotaged(here, tmp_path / "log", "fail-to-acquire")
    walk = walking(here, tmp_path, "WaypostPartitionFailing", 0, 1, worker=worker)
    await worker.start()

    def failing(found: Values) -> bool:
        lags = [found.get(("waypost_lag_commands", str(partition))) for partition in range(2)]
        return partitions(found) == (2, 0, 0, 2) and None not in lags and sum(map(int, lags)) == 20  # type: ignore[arg-type]

    await worker.shows(failing)
    await worker.shows(lambda found: found["waypost_terms_ended_total", "error"] >= 8)
    status, body = await worker.get("/readyz")
    assert status == 503
    said = r"unexpected error: TypeError at waypost_worker\.[\w.]+:\d+"
    assert re.fullmatch(rf"partition 0: {said}; partition 1: {said}", json.loads(body)["partitions"])
    assert (await worker.get("/livez"))[0] == 200, "a restart would not help"
    lines = worker.lines("owner_failed")
    assert [(line["partition"], "exception" in line) for line in lines] in (
        [(0, True), (1, True)],
        [(1, True), (0, True)],
    )
    assert await raised(tmp_path, worker) == {"WaypostPartitionFailing"}
    assert "unexpected error" in await walk.step()
    assert 'reason="error"' in await walk.step()
    await walk.rest()
    assert walk.worker is not None
    await walk.worker.answers("/readyz", ok)
    await here.balanced()
    await calm(here, tmp_path, walk.worker)


@pytest.mark.long
async def test_an_open_transaction_is_named_and_ended(
    here: Deployment, tmp_path: Path, topic_prefix: str
) -> None:
    (held,) = here.sessions(0, 1)
    worker = Watched(here, tmp_path / "log", WAYPOST_STUCK_AFTER="2")
    values = {"--transactionalId agent-7": f"--transactionalId {topic_prefix}-agent"}
    walk = walking(here, tmp_path, "WaypostOpenTransaction", 0, worker=worker, values=values)
    await worker.start()
    await here.create(held)
    await worker.shows(lambda found: found.get(("waypost_lag_commands", "0")) == 0)
    agent = AIOKafkaProducer(
        bootstrap_servers=here.endpoints.bootstrap_servers, transactional_id=f"{topic_prefix}-agent"
    )
    await agent.start()
    try:
        await agent.begin_transaction()
        begun = await agent.send_and_wait(here.topics.commands, b"{}", key=held.encode(), partition=0)
        for number in range(3):
            await here.create(held, step=number)
        await here.create(here.sessions(1, 1)[0])
        await here.answered(2)
        await worker.shows(lambda found: found.get(("waypost_open_transaction_seconds", "0"), 0) > 30)
        found = await worker.metrics()
        assert found["waypost_open_transaction_seconds", "1"] == 0
        assert found["waypost_lag_commands", "0"] == 0, "it counts what can be read"
        assert (await worker.get("/livez"))[0] == 200, "a restart would not help"
        status, body = await worker.get("/readyz")
        assert status == 200
        assert re.fullmatch(
            rf"partition 0: a client's transaction is open at offset {begun.offset} for \d+ s, and 4 records from "
            "there on wait for its end",
            json.loads(body)["transactions"],
        )
        assert await raised(tmp_path, worker) == {"WaypostOpenTransaction"}
        assert f"open at offset {begun.offset}" in await walk.step()
        producers = await walk.step()
        (producer_id,) = re.findall(rf"^(\d+) .*\t{begun.offset} *\t$", producers, re.MULTILINE)
        assert re.search(
            rf"^{topic_prefix}-agent\s+\d+\s+{producer_id}\s+Ongoing", await walk.step(), re.MULTILINE
        )
        await walk.rest()
        await here.answered(5)
        with pytest.raises(ProducerFenced):
            await agent.commit_transaction()
    finally:
        await agent.stop()
    await worker.shows(lambda found: found["waypost_open_transaction_seconds", "0"] == 0)
    assert "transactions" not in json.loads(await worker.answers("/readyz", ok))
    await calm(here, tmp_path, worker)


async def test_a_transaction_at_the_end_of_a_partition_leaves_no_lag(
    here: Deployment, tmp_path: Path
) -> None:
    """Its marker takes an offset that nobody ever sees. Lag would stay 1, and /livez fail because of it."""
    (session,) = here.sessions(0, 1)
    worker = Watched(here, tmp_path / "log", WAYPOST_STUCK_AFTER="1")
    await worker.start()
    await worker.answers("/readyz", ok)
    agent = AIOKafkaProducer(
        bootstrap_servers=here.endpoints.bootstrap_servers, transactional_id=f"{here.topics.prefix}-agent"
    )
    await agent.start()
    try:
        for commit in (True, False, True):
            await agent.begin_transaction()
            last = await agent.send_and_wait(here.topics.commands, b"{}", key=session.encode(), partition=0)
            await (agent.commit_transaction() if commit else agent.abort_transaction())
    finally:
        await agent.stop()
    await here.answered(2)
    await worker.shows(lambda found: found.get(("waypost_lag_commands", "0")) == 0)
    assert (await worker.get("/livez"))[0] == 200
    # The group's offset, which lag monitors compare with the end of the log, is behind the last marker as well.
    monitor = AIOKafkaConsumer(
        bootstrap_servers=here.endpoints.bootstrap_servers,
        group_id=here.topics.prefix,
        enable_auto_commit=False,
    )
    await monitor.start()
    try:
        partition = TopicPartition(here.topics.commands, 0)
        monitor.assign([partition])

        async def committed() -> bool:
            return await monitor.committed(partition) == last.offset + 2

        await here.until(committed)
    finally:
        await monitor.stop()
    assert await worker.end(signal.SIGTERM) == 0
