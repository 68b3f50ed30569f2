"""Checkpoints published with confluent-kafka (librdkafka) instead of waypost.Publisher.

Needs pip install confluent-kafka, and a running `waypost dev`, whose address is expected in
WAYPOST_BOOTSTRAP_SERVERS. Any client in any language sends the same: see docs/other-languages.md.
"""

import json
import os
import uuid
from datetime import UTC, datetime

from confluent_kafka import KafkaError, Message, Producer

TOPIC = os.environ.get("WAYPOST_TOPIC_PREFIX", "waypost") + ".commands"


def create(producer: Producer, session: str, name: str, data: dict[str, object]) -> None:
    """Publish one checkpoint; ``delivered`` says what became of it."""
    producer.produce(
        TOPIC,
        key=session,
        value=json.dumps({"name": name, "data": data}),
        headers={
            "ce_specversion": "1.0",
            "ce_id": str(uuid.uuid4()),
            "ce_source": "/confluent-producer",
            "ce_type": "waypost.checkpoint.create",
            "ce_time": datetime.now(UTC).isoformat(),
            "content-type": "application/json",
        },
        on_delivery=delivered,
    )


def delivered(error: KafkaError | None, message: Message) -> None:
    """Called by poll() and flush()."""
    print(f"{(message.key() or b'').decode()}: {error or 'in the log'}")


def main() -> None:
    """Three steps of three sessions."""
    producer = Producer(
        {
            "bootstrap.servers": os.environ["WAYPOST_BOOTSTRAP_SERVERS"],
            "enable.idempotence": True,
            # The partitioner that Waypost expects. librdkafka's own default is a different hash, and Waypost rejects
            # commands in a wrong partition as misrouted.
            "partitioner": os.environ.get("PARTITIONER", "murmur2_random"),
        }
    )
    for step in range(3):
        for session in ("run-a", "run-b", "run-c"):
            create(producer, session, "step_done", {"step": step})
    left = producer.flush(30)
    if left:
        raise SystemExit(f"{left} commands were not delivered within 30 s")


if __name__ == "__main__":
    main()
