"""The ids of topics, asked for once by all who want to know at the same time.

An answer describes every partition of the topic, and each owner of a worker asks when it acquires its partition.
"""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from waypost.sharing import SharedRequests
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.fetch_by_id import TopicIdRequest, topic_id_in


class TopicIds:
    """Asks brokers for ids of topics. One broker's failure for one topic does not affect requests for another."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._requests: dict[tuple[str, int], SharedRequests[str, UUID | None]] = {}

    async def ask(self, topic: str, node: int) -> UUID | None:
        """Return what a broker says is the id of a topic; None if there is no such topic.

        Raises:
            NotImplementedError, IncompatibleBrokerVersion: The broker is older than 3.1.
            KafkaError: The broker answers with an error, or not at all.
        """
        requests = self._requests.get((topic, node))
        if requests is None:
            requests = self._requests[topic, node] = SharedRequests(partial(self._ask, node))
        return await requests.get(topic)

    async def _ask(self, node: int, topics: Sequence[str]) -> dict[str, UUID | None]:
        return {topic: topic_id_in(await self._client.send(node, TopicIdRequest(topic))) for topic in topics}
