"""The downstream side: result events, each at least once, in order per session.

Positions are committed only for events that the application is done with: with the iterator that is when it
asks for the next one, with :meth:`Subscriber.run` when its handler has returned. After a crash or a rebalance
the events since then come again; their ids are the same, see :class:`waypost.Deduplicator`. The Kafka client,
most of what there is to import, is loaded when a subscriber starts.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from waypost.deprecation import renamed_keywords
from waypost.kafka.addresses import broker_addresses
from waypost.model.times import to_micros
from waypost.subscriber.dispatcher import Handler, HandlerDispatcher, HandlerOptions, OnFailure
from waypost.subscriber.events import Deduplicator as Deduplicator
from waypost.subscriber.events import Event as Event
from waypost.subscriber.events import EventFilter, read_event
from waypost.wire.topics import DEFAULT_PREFIX, Topics

if TYPE_CHECKING:
    from waypost.subscriber.consumer import ResultConsumer


class Subscriber:
    """An async iterator over events, or ``run(handler)``.

    With ``group``, partitions are shared among all subscribers of that group and positions are kept in Kafka;
    without, this subscriber reads every partition and keeps no position. It begins at the group's position;
    where there is none at the end, or with ``from_beginning`` at the beginning, or with ``since`` (an aware
    datetime, by the timestamps of the results topic) at the first event from then on. ``names`` (of
    checkpoints), ``types`` (``"created"``, ``"checkpoint.created"`` or whole) and ``sessions`` filter by
    header, without parsing a body. ``kafka_options`` go to the Kafka client. A group's member that takes no event
    for ``max_poll_interval_ms`` (5 minutes) loses its partitions to the others; with :meth:`run` that holds for
    a single handler only where it keeps the whole subscriber waiting.

    A Kafka consumer can get stuck: its log goes on, and nothing comes. One that was asked in vain for
    ``stuck_after`` seconds and is still behind at a second look is replaced by a new one, which goes on from what
    was done. That is logged, counted in ``restarts`` and told to ``on_restart``.
    """

    @renamed_keywords(prefix="topic_prefix", options="kafka_options")
    def __init__(
        self,
        bootstrap_servers: str,
        *,
        group: str | None = None,
        topic_prefix: str = DEFAULT_PREFIX,
        names: Iterable[str] | None = None,
        types: Iterable[str] | None = None,
        sessions: Iterable[str] | None = None,
        from_beginning: bool = False,
        since: datetime | None = None,
        kafka_options: Mapping[str, Any] | None = None,
        stuck_after: float = 30.0,
        on_restart: Callable[[str], None] | None = None,
    ) -> None:
        if stuck_after <= 0:
            raise ValueError(f"stuck_after must be above 0 seconds, not {stuck_after}")
        if from_beginning and since is not None:
            raise ValueError("from_beginning and since contradict each other: pass one of them")
        if group is not None and (not isinstance(group, str) or not group):
            raise ValueError(f"group must be the name of a consumer group, or None for none, not {group!r}")
        broker_addresses(bootstrap_servers)  # refuses what is none
        self._topic = Topics(topic_prefix).results
        self._group = group
        self._filter = EventFilter(names, types, sessions)
        # In milliseconds, rounded up.
        self._start = (from_beginning, None if since is None else max(0, -(-to_micros(since) // 1000)))
        self._options = {**(kafka_options or {}), "bootstrap_servers": bootstrap_servers}
        self._watch = (stuck_after, on_restart)
        self._consuming: ResultConsumer | None = None
        self._earlier_restarts = 0
        self._entered = False

    @property
    def restarts(self) -> int:
        """How often a stuck Kafka consumer was replaced."""
        return self._earlier_restarts + (0 if self._consuming is None else self._consuming.restarts)

    async def start(self) -> Self:
        """Connect and take up the position, once the results topic exists.

        Raises:
            ValueError: the Kafka client does not take the ``kafka_options``.
            KafkaUnavailableError: No broker can be reached.
            AccessDeniedError: Kafka does not accept the login or the certificate, or denies reading the topic.
            SubscriberError: Kafka refused for another reason.
        """
        await self._started()
        return self

    async def _started(self) -> "ResultConsumer":
        if self._consuming is None:
            from aiokafka.errors import KafkaConnectionError, KafkaError

            from waypost.kafka.diagnosis import connection_error, require_access
            from waypost.subscriber.consumer import ResultConsumer, Start
            from waypost.subscriber.failures import subscriber_error
            from waypost.subscriber.watchdog import Watch

            try:
                consuming = ResultConsumer(
                    self._topic, self._group, Start(*self._start), self._options, Watch(*self._watch)
                )
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(f"the Kafka client does not take these options: {error}") from error
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
        """Commit what is done and leave. An iteration or run that is under way ends."""
        consuming, self._consuming = self._consuming, None
        if consuming is not None:
            self._earlier_restarts += consuming.restarts
            await consuming.close()

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
                    if self._filter.wants(record.headers):
                        yield read_event(record)
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
        """Call ``handler`` with each event until cancelled or closed.

        Up to ``concurrency`` sessions at a time, the events of one session one after the other. A handler that
        raises is tried again up to ``retries`` times, with growing pauses (0.1 to 30 s) in which others are
        handled. What fails for good goes to the topic ``dead_letters``, which must exist, as the record that it
        was with headers ``deadletter-…`` that say why, whence and when; then ``on_failure`` gets the event and
        the error. The position moves on once both are through. Without both, and where one of them fails, the
        error (DeadLetterError for the topic) ends the run with the position before that event. A rebalance
        waits up to 30 s for handlers under way; retries are left to whoever has the partition next.
        """
        plan = HandlerOptions(handler, concurrency, retries, on_failure)
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
        """An iteration or a run has ended: within ``async with`` another may follow."""
        if self._entered:
            consuming.rewind()
        else:
            await self.close()
