"""Finding a topic: Kafka reports a topic that is requested, and one that is created later only if it is requested
again.
"""

import asyncio
import logging
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import TopicAuthorizationFailedError

from waypost.backoff import Backoff
from waypost.kafka.cluster_connections import ClusterConnections

log = logging.getLogger("waypost")
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 2.0
_DENIALS: Final = 3


async def partitions_of(
    client: AIOKafkaClient | ClusterConnections, topic: str, *, patient: bool = False
) -> list[int]:
    """Return the numbers of a topic's partitions, in order. Wait without limit until Kafka knows them.

    ``patient``: who waits here has nobody who gives up, so it is logged once what is waited for.
    """
    backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT, factor=3)
    await client.add_topic(topic)
    denials = 0
    while not (found := client.cluster.partitions_for_topic(topic)):
        # Permissions reach brokers a moment after they were given, so one denial means little.
        denials += topic in client.cluster.unauthorized_topics
        if denials > _DENIALS:
            raise TopicAuthorizationFailedError(topic)
        if patient:
            log.warning("Kafka does not know a topic %r yet; 'waypost topics create' creates it", topic)
            patient = False
        await asyncio.sleep(backoff.next_wait())
        await client.force_metadata_update()
    return sorted(found)
