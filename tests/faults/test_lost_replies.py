"""What was asked for happened, and the answer was lost: of a commit in Postgres, and of an append in Kafka.

Breaks: a proxy lets the request through, waits until the server has done it, throws the reply away and cuts the
connection. Both happen many times over, to fence records and to results.
Must hold: a batch counts once although its worker can't know that it was committed; a result is in the topic once
although its worker can't know that it was appended; all goes on within 30 s.
"""

import pytest
from tests.faults.scene import Scene
from tests.faults.ways import ways_of
from tests.faults.wire import COMMIT, KafkaReplies, Losses, PostgresReplies

LOSSES = 12


async def suffer(stage: Scene, losses: Losses) -> None:
    await stage.crew(2)
    losses.left = LOSSES
    await stage.until(lambda: losses.lost == LOSSES)
    await stage.healed()
    await stage.judge()


async def test_lost_replies_to_commit(shared: Scene) -> None:
    losses = Losses(shared.random)
    async with ways_of(shared, postgres_wire=lambda: PostgresReplies(losses, COMMIT)):
        await suffer(shared, losses)


@pytest.mark.long
async def test_lost_replies_to_produce(shared: Scene) -> None:
    losses = Losses(shared.random)
    async with ways_of(shared, kafka_wire=lambda: KafkaReplies(losses)):
        await suffer(shared, losses)
