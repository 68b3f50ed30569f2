"""The agent's side: checkpoint commands, fire and forget.

A call validates and encodes a command, puts it into a bounded buffer, and returns its id. It never waits for Kafka, and
works while Kafka is unreachable. :class:`Publisher` belongs to an event loop, which must not be blocked for long;
:class:`waypost.SyncPublisher` has its own thread. The Kafka client, which takes most of the import time, is loaded when
a publisher starts.
"""

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from waypost.arguments import require_timeout
from waypost.deprecation import deprecated, renamed_keywords
from waypost.discovery import find_deployment
from waypost.encryption import codec_of
from waypost.errors import InvalidArgumentError, PublisherClosedError
from waypost.kafka.addresses import broker_addresses
from waypost.publisher.buffer import Buffer
from waypost.publisher.calls import split_import as split_import
from waypost.publisher.delivery import DeliveryTracker
from waypost.publisher.exits import at_exit
from waypost.publisher.loops import await_on
from waypost.publisher.options import RENAMED_OPTIONS, RETIRED_OPTIONS, PublisherOptions, PublisherSettings
from waypost.publisher.pending import Pending
from waypost.publisher.results import ResultMethods
from waypost.publisher.stamps import new_id
from waypost.publisher.stats import PublisherStats, counted
from waypost.wire.encode import check_session_id, policy_body
from waypost.wire.event_types import EventType
from waypost.wire.topics import Topics

if TYPE_CHECKING:
    from waypost.publisher.encrypter import Encrypter
    from waypost.publisher.sender import Sender
    from waypost.publisher.spool.spooler import Spooler

log = logging.getLogger("waypost")
_T = TypeVar("_T")
# A program that ends later than this makes people wonder why.
_PATIENT_SECONDS = 1.0


class Publisher(ResultMethods):
    """Publisher of commands for code on an event loop.

    Use it as ``async with waypost.Publisher("localhost:9092") as publisher``. Without addresses it connects to what the
    command line finds: ``WAYPOST_`` variables, then waypost.toml, then a running ``waypost dev``. The options are those
    of :class:`waypost.PublisherOptions`. A plain call can't wait on an event loop, so there is no ``on_full="block"``;
    use ``await publisher.drain()`` before the call instead. With a spool, each call has written its command to a file
    when it returns. With ``spool_fsync``, ``await publisher.persisted()`` waits until the disk has it too. The methods
    that wait may be awaited on another event loop too, as long as that of the publisher runs.
    """

    _may_block = False
    _kind = "Publisher"

    @renamed_keywords(RETIRED_OPTIONS, **RENAMED_OPTIONS)
    def __init__(self, bootstrap_servers: str | None = None, **options: Unpack[PublisherOptions]) -> None:
        if bootstrap_servers is None:
            found = find_deployment()
            bootstrap_servers = found.bootstrap_servers
            options = {"topic_prefix": found.topic_prefix, "kafka_options": found.kafka_options, **options}
            if "codec" not in options:
                options["codec"] = codec_of(found)
        settings = self._settings = PublisherSettings.of(options)
        super().__init__(settings.default, encrypts=settings.codec is not None)
        if settings.on_full == "block" and not self._may_block:
            raise InvalidArgumentError(
                "on_full='block' would stop the event loop: await publisher.drain() instead"
            )
        self._topics = Topics(settings.topic_prefix)
        self._source = settings.source.encode()
        broker_addresses(bootstrap_servers)  # raises an error for an invalid one
        self._options = {"bootstrap_servers": bootstrap_servers, **(settings.kafka_options or {})}
        self._outcomes = DeliveryTracker(settings.on_delivery)
        self._spooler: Spooler | None = None
        # With a spool, replaced at the start, once it is known what dead publishers left.
        self._buffer = Buffer(
            settings.max_buffer_count, settings.max_buffer_bytes, settings.on_full, self._wake, self._dropped
        )
        self._encrypter = self._make_encrypter()
        self._sender: Sender | None = None
        self._waiter = None
        self._pid = os.getpid()
        self._thread = 0
        self._closed = False
        self._ended = asyncio.Event()

    def _make_encrypter(self) -> "Encrypter | None":
        settings = self._settings
        if settings.codec is None:
            return None
        from waypost.publisher.encrypter import Encrypter  # brings cryptography

        return Encrypter(
            settings.codec,
            lambda pending, timeout: self._buffer.put(*pending, timeout=timeout),
            self._outcomes.lost,
            spooled=settings.spool is not None,
            most_count=settings.max_buffer_count,
            most_bytes=settings.max_buffer_bytes,
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._sender is None else "open"
        servers, topic = self._options["bootstrap_servers"], self._topics.commands
        return f"<{self._kind} of {topic!r} at {servers}: {state}, {len(self._buffer)} buffered>"

    async def start(self) -> Self:
        """Start to send, without waiting for Kafka.

        Raises:
            InvalidArgumentError: The Kafka client does not accept the ``kafka_options``.
            SpoolError: The spool's directory can't be used.
            PublisherClosedError: The publisher was already closed.
        """
        from waypost.publisher.sender import Sender

        if self._closed:
            raise PublisherClosedError(
                "the publisher is closed, and can't be started again: create a new one"
            )
        if self._sender is None:
            self._thread = threading.get_ident()
            self._loop = asyncio.get_running_loop()
            if (directory := self._settings.spool) is not None:
                opening = asyncio.ensure_future(asyncio.to_thread(self._open_spool, directory))
                try:
                    self._spooler = await asyncio.shield(opening)
                except asyncio.CancelledError:
                    # The thread can't be stopped. Any spool that it takes over is left for the next publisher.
                    opening.add_done_callback(_give_up)
                    raise
            if self._encrypter is not None:
                await self._encrypter.start()
            self._sender = Sender(
                self._buffer, self._topics, self._source, self._options, self._outcomes.done, self._left_open
            )
            _open.add(self)
            at_exit(_end_all)
        return self

    def _open_spool(self, directory: "str | os.PathLike[str]") -> "Spooler":
        from waypost.publisher.spool import open_spool  # only those who have one need it

        settings = self._settings
        spooler = open_spool(Path(directory).absolute(), settings, self._topics.commands, self._source)
        self._buffer = Buffer(
            settings.max_buffer_count,
            settings.max_buffer_bytes,
            settings.on_full,
            self._wake,
            self._dropped,
            spooler,
        )
        spooler.start(self._buffer)
        return spooler

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def flush(self, timeout: float | None = None) -> int:
        """Wait until Kafka has acknowledged everything accepted before this call.

        Args:
            timeout: Seconds to wait; None waits indefinitely.

        Returns:
            The number of commands still unacknowledged, including those left by dead publishers; 0 unless the timeout
            expired or the publisher was closed.

        Raises:
            PublisherClosedError: The publisher belongs to the parent process, or to an event loop that is not running.
        """
        require_timeout(timeout)
        self._own_process()
        if self._elsewhere():
            return await self._over_there(self.flush(timeout))
        target = self._buffer.newest
        if self._sender is not None and self._sender.alive:
            try:
                async with asyncio.timeout(timeout):
                    if self._encrypter is not None:
                        await self._encrypter.settled()
                        target = self._buffer.newest
                    await self._sender.until(lambda: not self._buffer.holds(target))
            except (TimeoutError, PublisherClosedError):
                pass
        return self._buffer.count_left(target) + self._waiting_for_keys()

    def _waiting_for_keys(self) -> int:
        return 0 if self._encrypter is None else len(self._encrypter)

    async def prepare(self, *session_ids: str) -> None:
        """Load the keys of sessions into memory, so that later calls for them do not have to wait for one.

        A session without a key gets one. Without a codec, this does nothing. With a codec and a spool, await it before
        the first call for a session: such a call can't wait, and commands are not kept in memory alone.

        Raises:
            KeyErasedError: The key of one was deleted.
            KeyStoreError: The key store can't be used.
            KeyWrappingError: A key can't be wrapped or unwrapped.
        """
        checked = [check_session_id(each) for each in session_ids]
        if (codec := self._settings.codec) is not None:
            await self._here(codec.prepare(*checked))

    async def persisted(self) -> None:
        """Wait until everything accepted before this call is on the local disk or in Kafka.

        Without ``spool_fsync``, the operating system has the commands when a call returns, and this returns
        immediately. With it, all commands accepted in the meantime share one disk sync, off the event loop.

        Raises:
            InvalidArgumentError: The publisher has no spool.
            SpoolError: The disk can't be synced. Accepted commands will still be sent.
        """
        spooler = self._spooler
        if spooler is None:
            raise InvalidArgumentError("Without a spool, nothing can be persisted. Pass spool=DIRECTORY.")
        self._working()
        if self._elsewhere():
            await self._over_there(self.persisted())
            return
        number = self._buffer.newest
        if not spooler.persisted(number):
            await self._told(partial(spooler.when_persisted, number))
            spooler.persisted(number)

    async def _told(self, ask: Callable[[Callable[[], None]], None]) -> None:
        done = asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop was closed in the meantime, and nobody waits
                self._loop.call_soon_threadsafe(done.set)

        ask(tell)
        await done.wait()

    @deprecated("persisted()")
    async def saved(self) -> None:
        """Call :meth:`persisted`, the new name."""
        await self.persisted()

    async def drain(self) -> None:
        """Wait until the buffer is at most half full, to publish no faster than Kafka accepts.

        With a spool, wait until a quarter of it is free, because the disk takes the commands that Kafka does not.

        Raises:
            PublisherClosedError: The publisher is closed or was not started.
        """
        if not self._buffer.roomy():
            sender = self._working()
            if self._elsewhere():
                await self._over_there(self.drain())
            else:
                await sender.until(self._buffer.roomy)

    @deprecated("drain()")
    async def room(self) -> None:
        """Call :meth:`drain`, the new name."""
        await self.drain()

    async def close(self, timeout: float = 10) -> int:
        """Flush for at most ``timeout`` seconds, then stop.

        With a spool, commands that Kafka has not acknowledged are kept for the next publisher of its directory.
        Without one, each is reported to ``on_delivery``. A canceled close stops waiting for Kafka, and does everything
        else.

        Returns:
            The number of accepted commands that Kafka has not acknowledged. Some of them may have reached Kafka.

        Raises:
            PublisherClosedError: The publisher belongs to the parent process.
        """
        require_timeout(timeout)
        if self._elsewhere():
            return await self._over_there(self.close(timeout))
        if self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._ended.wait()  # somebody else's close
            return len(self._buffer)
        self._own_process()
        self._closed = True
        _open.discard(self)
        # A cancellation cuts short what is waited for, and nothing else.
        async with AsyncExitStack() as last:
            last.callback(self._ended.set)
            last.callback(self._tell_what_is_left)
            last.push_async_callback(self._keep)
            if self._waiter is not None:
                last.push_async_callback(self._waiter.stop)
            if self._sender is not None and self._sender.alive:
                last.push_async_callback(self._sender.stop)
            if self._encrypter is not None:
                last.push_async_callback(self._end_encryption, self._encrypter)
            saying = asyncio.get_running_loop().call_later(_PATIENT_SECONDS, self._log_waiting, timeout)
            last.callback(saying.cancel)
            await self.flush(timeout)
        return len(self._buffer) + self._waiting_for_keys()

    async def _end_encryption(self, encrypter: "Encrypter") -> None:
        for pending in await encrypter.close():
            self._outcomes.lost(pending, f"its key could not be loaded: {encrypter.last_error}")

    def _log_waiting(self, timeout: float) -> None:
        log.warning(
            "The publisher is closing, and waits up to %g s for Kafka to acknowledge %d commands. Last error: %s",
            *(timeout, len(self._buffer), self._sender and self._sender.last_error),
        )

    async def _keep(self) -> None:
        self._buffer.close()
        if self._spooler is not None:
            # No executor: while the interpreter exits, it accepts no work.
            await self._told(self._spooler.end)

    def _tell_what_is_left(self) -> None:
        if self._spooler is None:
            for pending in self._buffer.left():
                self._outcomes.lost(pending, "left when the publisher closed; Kafka may have it or not")
        if left := len(self._buffer):
            log.error(
                "%d accepted commands were not acknowledged by Kafka before the publisher closed, and are %s (last "
                "error: %s)",
                left,
                self._fate(),
                self._sender.last_error if self._sender is not None else None,
            )

    def _fate(self) -> str:
        return "lost" if self._spooler is None else f"kept in {self._settings.spool}"

    def _left_open(self) -> None:
        """The event loop or the interpreter ends with this publisher still open."""
        _open.discard(self)
        if os.getpid() != self._pid:
            return
        self._buffer.close()
        if self._spooler is not None:
            self._spooler.close()
        if left := len(self._buffer) + self._waiting_for_keys():
            log.error(
                "the event loop of a publisher, or the program, ended before the publisher was closed: %d accepted "
                "commands were not acknowledged by Kafka, and are %s. Close the publisher first: use 'async with'",
                left,
                self._fate(),
            )

    def stats(self) -> PublisherStats:
        """Return counts for your metrics."""
        return counted(self._buffer, self._outcomes, self._sender, self._spooler, self._encrypter)

    async def configure_defaults(self, **changes: int | float | None) -> list[str]:
        """Set the retention policy of all sessions without their own.

        This takes one command for each partition, so it waits until Kafka says how many there are.

        Returns:
            The ids of the commands.
        """
        body = policy_body(changes)
        partitions = await self._here(self._working().partitions())
        pending = [
            Pending(new_id(), EventType.CONFIGURE_DEFAULTS, None, body, self._clock.now(), None, partition)
            for partition in range(partitions)
        ]
        self._accept(*pending)
        return [each.command_id for each in pending]

    def _working(self) -> "Sender":
        if self._sender is None or self._closed:
            raise PublisherClosedError(
                "the publisher is closed or was not started, so the command was not accepted"
            )
        self._own_process()
        if not self._sender.alive:
            raise PublisherClosedError(
                "the event loop of this publisher is closed, so the command was not accepted: create a "
                "publisher for each event loop"
            )
        return self._sender

    def _elsewhere(self) -> bool:
        """Return whether this is not the event loop on which the publisher's tasks and connections run, while they
        run.
        """
        sender = self._sender
        return sender is not None and sender.alive and asyncio.get_running_loop() is not self._loop

    async def _here(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Await a call on this publisher's event loop, from any."""
        return await (self._over_there(call) if self._elsewhere() else call)

    async def _over_there(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Await, on another event loop, a call that needs that of this publisher."""
        try:
            self._own_process()
            if not self._loop.is_running():
                raise PublisherClosedError(
                    "The event loop on which this publisher was started is not running, so nothing was accepted and "
                    "nothing can be waited for. Create a publisher on each event loop, or use waypost.SyncPublisher."
                )
        except PublisherClosedError:
            call.close()
            raise
        return await await_on(
            self._loop,
            call,
            "The event loop on which this publisher was started stopped before the call was done, so what it waited "
            "for may have happened or not. Keep that loop running, or use waypost.SyncPublisher.",
        )

    def _own_process(self) -> None:
        if os.getpid() != self._pid:
            raise PublisherClosedError(
                "this publisher was created before a fork and belongs to the parent process, so the command was "
                "not accepted: make one in this process"
            )

    def _accept(self, *pending: Pending, timeout: float | None = None) -> None:
        sender = self._sender
        # One look for all that _working asks after; it says what is wrong.
        if sender is None or self._closed or os.getpid() != self._pid or not sender.alive:
            self._working()
        if self._encrypter is None:
            self._buffer.put(*pending, timeout=timeout)
        else:
            self._encrypter.accept(pending, timeout)

    def _sending(self) -> bool:
        """Return whether Kafka accepts commands, as far as is known. From any thread."""
        sender = self._sender
        return sender is not None and sender.connected and sender.waiting_seconds() < 1

    def _wake(self) -> None:
        sender = self._sender
        if sender is None:
            return
        if threading.get_ident() == self._thread:
            sender.wake()
        else:
            with suppress(RuntimeError):  # the loop was closed in the meantime, so nobody can be woken
                self._loop.call_soon_threadsafe(sender.wake)

    def _dropped(self, pending: Pending) -> None:
        reason = "dropped: the buffer was full, and on_full is 'drop_oldest'"
        if threading.get_ident() == self._thread:
            self._outcomes.lost(pending, reason)
        else:
            with suppress(RuntimeError):  # as above
                self._loop.call_soon_threadsafe(self._outcomes.lost, pending, reason)


def _give_up(opening: "asyncio.Future[Spooler]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().end(lambda: None)


#: #: Publishers that are started and not closed, to be handled if the interpreter ends first.
_open: "weakref.WeakSet[Publisher]" = weakref.WeakSet()


def _end_all() -> None:
    for publisher in list(_open):
        publisher._left_open()
