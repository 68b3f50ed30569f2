"""What was asked for happened, and the answer was lost: of a commit in Postgres, and of an append in Kafka.

Breaks: a proxy lets the request through, waits until the server has done it, throws the reply away and cuts the
connection. Both happen many times over, to fence records and to results.
Must hold: a batch counts once although its worker can't know that it was committed; a result is in the topic once
although its worker can't know that it was appended; all goes on within 30 s.
"""

import pytest
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.faults.test_connections import port_of_dsn, through
from tests.faults.wire import KafkaReplies, Losses, PostgresReplies

LOSSES = 12
# Only the statement that applies a batch writes its outbox entry.
COMMIT = b"insert into waypost.outbox"


async def suffer(stage: Scene, losses: Losses) -> None:
    await stage.crew(2)
    losses.left = LOSSES
    await stage.until(lambda: losses.lost == LOSSES)
    await stage.healed()
    await stage.judge()


async def test_lost_replies_to_commit(shared: Scene) -> None:
    losses = Losses(shared.random)
    target = port_of_dsn(shared.endpoints.postgres_dsn)
    async with Proxy(target, lambda: PostgresReplies(losses, COMMIT)) as proxy:
        shared.worker_dsn = through(shared.endpoints.postgres_dsn, proxy.port)
        await suffer(shared, losses)


@pytest.mark.long
async def test_lost_replies_to_produce(shared: Scene) -> None:
    losses = Losses(shared.random)
    broker = int(shared.endpoints.bootstrap_servers.rpartition(":")[2])
    async with Proxy(broker, lambda: KafkaReplies(losses)) as proxy:
        shared.worker_arguments = ("--redirect", f"{broker}={proxy.port}")
        await suffer(shared, losses)
