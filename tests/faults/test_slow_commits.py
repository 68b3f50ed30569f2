"""Postgres needs longer for a batch than a time limit allows, whichever side sets the limit.

Breaks: each stored checkpoint takes 8 ms (a trigger), and a statement may take 0.3 s by the server's statement_timeout,
or 1 s by the worker's WAYPOST_REQUEST_TIMEOUT. Then 400 checkpoints of 6 KB come at once. In the last scenario a
single command takes 2 s by itself, which no smaller batch can help.
Must hold: batches become smaller until they are done in time, and the backlog is worked off; nothing is lost, doubled
or out of order. The single command is refused with words that name the limit, everything before it is applied, other
partitions continue, and so does this one once the limit is raised.
"""

import signal
import uuid
from typing import Any

import asyncpg
import pytest
from tests.faults.scene import Scene
from tests.simulation.agents import Message, sessions_of

from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType

TIME = b"2026-11-24T08:24:59.123456Z"
EACH_ROW = "perform pg_sleep(0.008);"
ONE_ROW = "if new.name = 'heavy' then perform pg_sleep(2); end if;"


async def slow_down(stage: Scene, step: str) -> None:
    """Let a trigger do this for each checkpoint that is stored."""
    connection: Any = await asyncpg.connect(stage.endpoints.postgres_dsn)
    try:
        await connection.execute(
            f"create function public.slow() returns trigger language plpgsql as $$ begin {step} return new; end $$; "
            "create trigger slow before insert on waypost.checkpoints for each row execute function public.slow()"
        )
    finally:
        await connection.close()


def creates(stage: Scene, partition: int, count: int, name: str, size: int) -> list[Message]:
    # A session of its own for each: what retention drops within a batch is never stored.
    body = b'{"name":"%s","data":{"text":"%s"}}' % (name.encode(), b"x" * size)
    return [
        (session.encode(), body, command_headers(uuid.uuid4().hex, b"/slow", EventType.CREATE.wire, TIME))
        for session in sessions_of(partition, stage.partitions, count)
    ]


@pytest.mark.parametrize("limit", ["statement_timeout", "request_timeout"])
async def test_batches_too_slow_for(shared: Scene, limit: str) -> None:
    await slow_down(shared, EACH_ROW)
    settings = {"batch_bytes": str(32 * 1024 * 1024)}
    if limit == "statement_timeout":
        shared.worker_dsn += "?statement_timeout=300"
    else:
        settings["request_timeout"] = "1"
    worker = await shared.worker(**settings)
    await shared.answered(20)
    worker.freeze()  # on a busy machine it would take the first of them before the last are there
    await shared.load.burst(0, creates(shared, 0, 400, "large", 6_000))
    worker.thaw()
    await shared.healed()
    slow = [event for event in worker.events("term_ended") if event["kind"] == "SlowBatchError"]
    assert slow, "nothing was too slow, so nothing was tested"
    assert all(limit in event["reason"].lower() for event in slow)
    await shared.judge()


async def test_a_command_that_is_too_slow_alone(shared: Scene) -> None:
    await slow_down(shared, ONE_ROW)
    patient = shared.worker_dsn
    shared.worker_dsn += "?statement_timeout=300"
    worker = await shared.worker()
    await shared.answered(20)
    await shared.load.burst(0, creates(shared, 0, 1, "heavy", 10))
    await shared.until(lambda: bool(worker.events("partition_refused")))
    (refusal, *_) = worker.events("partition_refused")
    assert refusal["partition"] == 0
    assert "can't be applied in time" in refusal["reason"]
    assert "Raise statement_timeout for the workers' role" in refusal["reason"]
    assert (await shared.applied())[0] == refusal["offset"]
    await shared.healed([1, 2, 3])
    assert await worker.end(signal.SIGTERM) == 0
    shared.worker_dsn = patient
    await shared.worker()
    await shared.healed()
    await shared.judge()
