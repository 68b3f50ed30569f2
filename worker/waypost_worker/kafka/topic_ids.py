"""The ids of topics, asked for once by all who want to know at the same time.

An answer describes every partition of the topic, and each owner of a worker asks when it acquires its partition.
"""

from collections.abc import Sequence
from uuid import UUID

from waypost.sharing import SharedRequests
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.fetch_by_id import TopicIdRequest, topic_id_in


class TopicIds:
    """Asks brokers for ids of topics."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._requests = SharedRequests(self._ask)

    async def ask(self, topic: str, node: int) -> UUID | None:
        """Return what a broker says is the id of a topic; None if there is no such topic.

        Raises:
            NotImplementedError, IncompatibleBrokerVersion: The broker is older than 3.1.
            KafkaError: The broker answers with an error, or not at all.
        """
        return await self._requests.get((topic, node))

    async def _ask(self, asked: Sequence[tuple[str, int]]) -> dict[tuple[str, int], UUID | None]:
        return {
            (topic, node): topic_id_in(await self._client.send(node, TopicIdRequest(topic)))
            for topic, node in asked
        }
