"""Publishing from the console: one publisher per user, whom the log names as the source of a command."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from waypost.errors import ResultTimeoutError
from waypost.publisher.client import Publisher
from waypost.publisher.waiter import CommandResult
from waypost_worker.console.access import User

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec

_MOST_PUBLISHERS: Final = 8
_MOST_RESULTS: Final = 200
RESULT_SECONDS: Final = 10.0


class Publishing:
    """Publishers by source, and the latest results by command id."""

    def __init__(
        self, servers: str, topic_prefix: str, kafka_options: Mapping[str, Any], codec: "Codec | None" = None
    ) -> None:
        self._codec = codec
        self._servers = servers
        self._topic_prefix = topic_prefix
        self._kafka_options = kafka_options
        self._publishers: OrderedDict[str, Publisher] = OrderedDict()
        self._results: OrderedDict[str, tuple[str, CommandResult]] = OrderedDict()
        self._opening = asyncio.Lock()

    async def send(
        self, user: User, session_id: str, event_type: str, body: bytes, command_id: str
    ) -> CommandResult:
        """Publish a command and return its result. The errors are those of ``Publisher.publish_and_wait``.

        A command that Kafka did not accept is dropped, because a command that a page reported as failed must not happen
        later.
        """
        publisher = await self.publisher(user)
        try:
            result = await publisher.publish_and_wait(
                session_id, event_type, body, command_id=command_id, timeout=RESULT_SECONDS
            )
        except ResultTimeoutError as error:
            if error.reached != "acknowledged":
                await self._drop(user)
            raise
        self._results[command_id] = (session_id, result)
        while len(self._results) > _MOST_RESULTS:
            self._results.popitem(last=False)
        return result

    def result(self, session_id: str, command_id: str) -> CommandResult | None:
        """Return the result of a recently sent command, or None if it is no longer known."""
        found = self._results.get(command_id)
        return found[1] if found is not None and found[0] == session_id else None

    async def publisher(self, user: User) -> Publisher:
        """Return a user's publisher."""
        async with self._opening:
            if user.source not in self._publishers:
                self._publishers[user.source] = await Publisher(
                    self._servers,
                    topic_prefix=self._topic_prefix,
                    source=user.source,
                    kafka_options=dict(self._kafka_options),
                    codec=self._codec,
                ).start()
            self._publishers.move_to_end(user.source)
            if len(self._publishers) > _MOST_PUBLISHERS:
                _, oldest = self._publishers.popitem(last=False)
                await oldest.close(timeout=1)
            return self._publishers[user.source]

    async def _drop(self, user: User) -> None:
        publisher = self._publishers.pop(user.source, None)
        if publisher is not None:
            await publisher.close(timeout=0)

    async def close(self) -> None:
        """Close all publishers."""
        for publisher in self._publishers.values():
            with contextlib.suppress(Exception):
                await publisher.close(timeout=1)


@asynccontextmanager
async def publishing(
    servers: str, topic_prefix: str, kafka_options: Mapping[str, Any], codec: "Codec | None" = None
) -> AsyncIterator[Publishing]:
    """Open what publishes; connections are made when they are first needed."""
    made = Publishing(servers, topic_prefix, kafka_options, codec)
    try:
        yield made
    finally:
        await made.close()
