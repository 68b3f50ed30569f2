"""The publisher and the reader that a backend is made of."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

from waypost.errors import InvalidArgumentError
from waypost.publisher.client import Publisher
from waypost.reader.barrier import Barrier
from waypost.reader.client import Reader

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec


class Connection:
    """One publisher and one reader, with the reader's barrier. They exist once it was opened."""

    publisher: Publisher
    reader: Reader
    barrier: Barrier

    def __init__(
        self,
        bootstrap_servers: str,
        dsn: str | Sequence[str],
        *,
        topic_prefix: str,
        schema: str,
        timeout: float,
        publisher_options: Mapping[str, Any],
        reader_options: Mapping[str, Any],
    ) -> None:
        self._make_publisher: Callable[[], Publisher] = lambda: Publisher(
            bootstrap_servers,
            **{
                "topic_prefix": topic_prefix,
                "source": "/waypost/adapter",
                **publisher_options,
            },
        )
        options = {
            "bootstrap_servers": bootstrap_servers,
            "topic_prefix": topic_prefix,
            "kafka_options": publisher_options.get("kafka_options"),
            **reader_options,
        }
        try:
            signature(Reader).bind(dsn, schema=schema, **options)
        except TypeError as error:
            raise InvalidArgumentError(f"the reader does not accept these reader_options: {error}") from None
        self._make_reader: Callable[[], Reader] = lambda: Reader(dsn, schema=schema, **options)
        self.timeout = timeout
        self.codec: Codec | None = publisher_options.get("codec")

    async def open(self) -> None:
        """Make a reader, which connects later, and start a publisher.

        Raises:
            InvalidArgumentError: The options leave the reader without brokers to ask.
            SpoolError: The spool's directory can't be used.
        """
        reader = self._make_reader()
        if (barrier := reader._barrier) is None:
            raise InvalidArgumentError("reader_options can't set bootstrap_servers to None")
        self.publisher = await self._make_publisher().start()
        self.reader, self.barrier = reader, barrier

    async def close(self) -> None:
        """Close both."""
        await self.publisher.close()
        await self.reader.close()
