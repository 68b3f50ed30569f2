"""The downstream side: result events, each at least once, in order per session.

Positions are committed only for events that are done. With the iterator, an event is done when the application requests
the next one; with :meth:`Subscriber.run`, when its handler has returned. After a crash or a rebalance, later events are
delivered again with the same ids; see :class:`waypost.Deduplicator`. The Kafka client, which takes most of the import
time, is loaded when a subscriber starts.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from waypost.arguments import require_above_zero, require_callable
from waypost.deprecation import renamed_keywords
from waypost.discovery import find_deployment
from waypost.encryption import codec_of, require_codec
from waypost.errors import InvalidArgumentError, quoted
from waypost.kafka.addresses import broker_addresses
from waypost.model.limits import require_sendable, require_sendable_options
from waypost.model.times import to_micros
from waypost.subscriber.decryption import decrypted_event
from waypost.subscriber.dispatcher import Handler, HandlerDispatcher, HandlerOptions, OnFailure
from waypost.subscriber.events import Deduplicator as Deduplicator
from waypost.subscriber.events import Event as Event
from waypost.subscriber.events import EventFilter, read_event
from waypost.wire.topics import DEFAULT_PREFIX, Topics

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec
    from waypost.subscriber.consumer import ResultConsumer


class Subscriber:
    """Subscriber to result events, as an async iterator or with :meth:`run`.

    If the topic grows but the Kafka consumer returns nothing for ``stuck_after`` seconds, at two consecutive checks,
    it is replaced by a new one, which continues after the last event that was done. This is logged, counted in
    ``restarts`` and reported to ``on_restart``.

    Args:
        bootstrap_servers: Addresses of brokers, as ``host:port``, separated by commas. If None, the subscriber
            connects to what the command line finds: ``WAYPOST_`` variables, then waypost.toml, then a running
            ``waypost dev``.
        group: Name of a consumer group. Its members share the partitions, and positions are kept in Kafka. A member
            that takes no event for ``max_poll_interval_ms`` (5 minutes) loses its partitions; with :meth:`run`, a slow
            handler only counts if the whole subscriber waits for it. None reads every partition and keeps no position.
        topic_prefix: Prefix of the two topics (default: ``waypost``, or what was found with the brokers).
        names: Only events of checkpoints with these names.
        types: Only events of these types, such as ``"created"`` or ``"checkpoint.created"``, or the full type.
        sessions: Only events of these sessions.
        from_beginning: If there is no position, start with the first event instead of the next one.
        since: If there is no position, start with the first event at this time or later. It has a time zone.
        kafka_options: Options of the Kafka client.
        stuck_after: Seconds after which a consumer that returns nothing is checked.
        on_restart: A function that is called with a text when the consumer is replaced.
        codec: A :class:`waypost.Codec` that decrypts data. Without one, encrypted data comes as it is. If no brokers
            are given, the subscriber has that of the deployment.
    """

    @renamed_keywords(prefix="topic_prefix", options="kafka_options")
    def __init__(
        self,
        bootstrap_servers: str | None = None,
        *,
        group: str | None = None,
        topic_prefix: str | None = None,
        names: Iterable[str] | None = None,
        types: Iterable[str] | None = None,
        sessions: Iterable[str] | None = None,
        from_beginning: bool = False,
        since: datetime | None = None,
        kafka_options: Mapping[str, Any] | None = None,
        stuck_after: float = 30.0,
        on_restart: Callable[[str], None] | None = None,
        codec: "Codec | None" = None,
    ) -> None:
        require_above_zero("stuck_after", stuck_after)
        if on_restart is not None:
            require_callable("on_restart", on_restart)
        if from_beginning and since is not None:
            raise InvalidArgumentError("from_beginning and since contradict each other: pass one of them")
        if group is not None and (not isinstance(group, str) or not group):
            raise InvalidArgumentError(
                f"group must be the name of a consumer group, or None for none, not {quoted(group)}"
            )
        if group is not None:
            require_sendable("group", group)
        if bootstrap_servers is None:
            found = find_deployment()
            bootstrap_servers = found.bootstrap_servers
            topic_prefix = topic_prefix or found.topic_prefix
            kafka_options = found.kafka_options if kafka_options is None else kafka_options
            codec = codec_of(found) if codec is None else codec
        require_sendable_options({} if kafka_options is None else kafka_options)
        require_codec(codec)
        broker_addresses(bootstrap_servers)  # raises an error for an invalid one
        self._topic = Topics(DEFAULT_PREFIX if topic_prefix is None else topic_prefix).results
        self._group = group
        self._filter = EventFilter(names, types, sessions)
        # In milliseconds, rounded up.
        self._start = (from_beginning, None if since is None else max(0, -(-to_micros(since) // 1000)))
        self._options = {**(kafka_options or {}), "bootstrap_servers": bootstrap_servers}
        self._watch = (stuck_after, on_restart)
        self._codec = codec
        self._consuming: ResultConsumer | None = None
        self._earlier_restarts = 0
        self._entered = False

    def __repr__(self) -> str:
        group = "" if self._group is None else f", group {self._group!r}"
        state = "new or closed" if self._consuming is None else "open"
        return f"<Subscriber to {self._topic!r} at {self._options['bootstrap_servers']}{group}: {state}>"

    @property
    def restarts(self) -> int:
        """Number of times that a stuck Kafka consumer was replaced."""
        return self._earlier_restarts + (0 if self._consuming is None else self._consuming.restarts)

    async def start(self) -> Self:
        """Connect, and take up the position once the results topic exists.

        Raises:
            InvalidArgumentError: The Kafka client does not accept the ``kafka_options``.
            KafkaUnavailableError: No broker can be reached.
            AccessDeniedError: Kafka does not accept the login or the certificate, or denies reading the topic.
            SubscriberError: Kafka refused for another reason.
        """
        await self._started()
        return self

    async def _started(self) -> "ResultConsumer":
        if self._consuming is None:
            from aiokafka.errors import KafkaConnectionError, KafkaError

            from waypost.kafka.client_options import rejecting_options
            from waypost.kafka.diagnosis import connection_error, require_access
            from waypost.subscriber.consumer import ResultConsumer, Start
            from waypost.subscriber.failures import subscriber_error
            from waypost.subscriber.watchdog import Watch

            with rejecting_options():
                consuming = ResultConsumer(
                    self._topic, self._group, Start(*self._start), self._options, Watch(*self._watch)
                )
            try:
                await require_access(self._options)
                await consuming.open()
            except KafkaConnectionError as error:
                raise await connection_error(self._options) from error
            except KafkaError as error:
                raise subscriber_error(error, self._topic, self._group) from error
            self._consuming = consuming
        return self._consuming

    async def close(self) -> None:
        """Commit the position and disconnect. An iteration or run in progress ends."""
        consuming, self._consuming = self._consuming, None
        if consuming is not None:
            self._earlier_restarts += consuming.restarts
            await consuming.close()
        if self._codec is not None:
            await self._codec.close()

    async def __aenter__(self) -> Self:
        await self.start()
        self._entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._entered = False
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        consuming = await self._started()
        try:
            async for term, partition, records in consuming.batches():
                for record in records:
                    if term != consuming.term:
                        break  # the partition went away; what was not taken yet comes again
                    if record.value is not None and self._filter.wants(record.headers):
                        yield await decrypted_event(read_event(record), self._codec)
                    # Only now: asking for the next event says that this one is done with.
                    consuming.mark(term, partition, record.offset)
        finally:
            await self._left(consuming)

    async def run(
        self,
        handler: Handler,
        *,
        concurrency: int = 16,
        retries: int = 5,
        on_failure: OnFailure | None = None,
        dead_letters: str | None = None,
    ) -> None:
        """Call ``handler`` with each event, until canceled or closed.

        The events of one session are handled one at a time. A handler that raises an error is called again, after
        growing pauses (0.1 to 30 s) in which other sessions continue. An event that fails permanently is written to
        ``dead_letters``, then passed to ``on_failure``, and the position moves past it. If neither is given, or one of
        them fails, the error ends the run, and the position stays before that event. A rebalance waits up to 30 s for
        handlers in progress and leaves retries to the next owner of the partition. With a codec, a key that can't be
        loaded counts as a failure of the handler.

        Args:
            handler: An async function that takes an event.
            concurrency: The maximum number of sessions handled at the same time.
            retries: The maximum number of retries for an event that fails.
            on_failure: An async function that takes an event that failed permanently, and the error.
            dead_letters: A topic, which must exist, for events that failed permanently. They get headers
                ``deadletter-…`` that say why, where they were and when.

        Raises:
            InvalidArgumentError: An argument can't be used.
            DeadLetterError: The dead-letter topic can't be used, or did not accept an event.
            KafkaUnavailableError: No broker can be reached at the start.
            AccessDeniedError: Kafka does not accept the login, or denies reading the topic or joining the group.
            SubscriberError: Kafka refused for another reason.
        """
        plan = HandlerOptions(handler, concurrency, retries, on_failure, self._codec)
        if dead_letters is not None:
            require_sendable("dead_letters", dead_letters)
        consuming = await self._started()
        try:
            async with AsyncExitStack() as stack:
                send_to_dead_letters = None
                if dead_letters is not None:
                    from waypost.subscriber.dead_letters import DeadLetters

                    letters = DeadLetters(dead_letters, self._group, self._options)
                    send_to_dead_letters = (await stack.enter_async_context(letters)).put
                await HandlerDispatcher(consuming, self._filter, plan, send_to_dead_letters).run()
        finally:
            await self._left(consuming)

    async def _left(self, consuming: "ResultConsumer") -> None:
        """An iteration or a run has ended. Another one may follow within ``async with``."""
        if self._entered:
            consuming.rewind()
        else:
            await self.close()
