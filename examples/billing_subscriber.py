"""A service that bills finished tasks once each, and keeps what it could not bill.

Needs pip install waypost, and a running `waypost dev`, whose address is expected in WAYPOST_BOOTSTRAP_SERVERS. It
publishes three tasks itself, one of which cannot be billed, and ends when all three are dealt with.
"""

import asyncio
import os

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import waypost

SERVERS = os.environ["WAYPOST_BOOTSTRAP_SERVERS"]
PREFIX = os.environ.get("WAYPOST_TOPIC_PREFIX", "waypost")
DEAD_LETTERS = f"{PREFIX}.billing.dead-letters"


async def main() -> None:
    """Publish, bill, report."""
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVERS)
    await admin.start()
    # Room for an event of any size with the headers that say why it failed.
    settings = {"max.message.bytes": "2097152"}
    await admin.create_topics([NewTopic(DEAD_LETTERS, 1, 1, topic_configs=settings)])
    await admin.close()

    async with waypost.Publisher(SERVERS, topic_prefix=PREFIX) as publisher:
        for tokens in (1200, -1, 300):
            publisher.create("run-1", "task_done", {"tokens": tokens})

    dealt_with: list[str] = []

    async def bill(event: waypost.Event) -> None:
        checkpoint = event.checkpoint
        assert checkpoint is not None  # a created event has one
        if checkpoint.data["tokens"] < 0:
            raise ValueError(f"{checkpoint.id} used {checkpoint.data['tokens']} tokens")
        done(f"billed {checkpoint.id}: {checkpoint.data['tokens']} tokens")

    async def failed(event: waypost.Event, error: Exception) -> None:
        done(f"kept in {DEAD_LETTERS.removeprefix(PREFIX)}: {error}")

    def done(text: str) -> None:
        dealt_with.append(text)
        if len(dealt_with) == 3:
            finished.set()

    finished = asyncio.Event()
    events = waypost.Subscriber(
        SERVERS,
        topic_prefix=PREFIX,
        group="billing",
        names=["task_done"],
        types=["created"],
        from_beginning=True,
    )
    once = waypost.Deduplicator().once(bill)
    running = asyncio.create_task(events.run(once, retries=1, on_failure=failed, dead_letters=DEAD_LETTERS))
    await finished.wait()
    await events.close()
    await running
    print(*dealt_with, sep="\n")


asyncio.run(main())
