"""Agents publish in Kafka transactions, and a partition ends with what no reader ever sees.

Breaks: transactions are committed and aborted under load, so that each partition ends with their markers; one agent
stands still in the middle of a transaction until Kafka aborts it. The watchdog would take a consumer for stuck after
two seconds. Then the worker is killed, and another one begins behind the markers.
Must hold: no aborted command is applied and every committed one is; what nobody can read counts as no lag, and the
worker stays alive and in place; the open transaction is named while it lasts; all goes on within 30 s.
"""

import json
import signal
import time
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from tests.faults.processes import WorkerProcess
from tests.faults.scene import Scene
from tests.oracle.ledger import fingerprint


def agent(stage: Scene, name: str, timeout_ms: int = 60_000) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=stage.endpoints.bootstrap_servers,
        transactional_id=f"{stage.topics.prefix}-{name}",
        transaction_timeout_ms=timeout_ms,
    )


async def transaction(stage: Scene, producer: AIOKafkaProducer, partition: int, commit: bool) -> None:
    """Publish a few commands in a transaction. Those of a committed one must be applied."""
    messages = [stage.load.agents[partition].next(time.time_ns() // 1_000_000) for _ in range(3)]
    await producer.begin_transaction()
    sent = [
        await producer.send_and_wait(
            stage.topics.commands, value, key=key, headers=headers, partition=partition
        )
        for key, value, headers in messages
    ]
    if not commit:
        await producer.abort_transaction()
        return
    await producer.commit_transaction()
    for record, message in zip(sent, messages, strict=True):
        stage.load.ledger.note(partition, record.offset, fingerprint(*message))


async def lags(worker: WorkerProcess) -> set[str]:
    """The values of the lag of all partitions."""
    _, text = await worker.get("/metrics")
    return {line.split()[-1] for line in text.splitlines() if line.startswith("waypost_lag_commands{")}


@pytest.mark.long
async def test_transactions(shared: Scene) -> None:
    (worker,) = await shared.crew(1, stuck_after="2")
    async with agent(shared, "agent") as well:
        for number in range(3 * shared.partitions):
            turn, partition = divmod(number, shared.partitions)
            await transaction(shared, well, partition, commit=(turn + partition) % 2 > 0)
        frozen = agent(shared, "frozen", timeout_ms=15_000)
        await frozen.start()
        await frozen.begin_transaction()
        begun = await frozen.send_and_wait(shared.topics.commands, b"{}", partition=0)

        async def is_named() -> bool:
            status, body = await worker.get("/readyz")
            return status == 200 and f"open at offset {begun.offset} " in json.loads(body).get(
                "transactions", ""
            )

        await shared.until(is_named)
        behind = await shared.load.mark(0)
        await shared.until(lambda: shared.live.answered[0] >= behind)  # Kafka has aborted it
        await shared.load.stop()
        for partition in range(1, shared.partitions):
            await transaction(shared, well, partition, commit=True)
            await transaction(shared, well, partition, commit=False)
        with suppress(KafkaError):  # it lost its transaction
            await frozen.stop()

    async def nothing_lags() -> bool:
        return await lags(worker) == {"0.0"}

    await shared.all_answered()
    await shared.until(nothing_lags)
    ended = worker.events("term_ended")
    await shared.for_a_while(10)  # longer than after which /livez fails if nothing moves
    assert (await worker.get("/livez"))[0] == 200
    assert worker.events("term_ended") == ended
    await worker.end(signal.SIGKILL)
    await shared.worker(stuck_after="2")
    await shared.healed()
    await shared.judge()
