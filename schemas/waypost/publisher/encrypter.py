"""Encryption of commands on their way into the buffer, and the wait for keys that are not in memory.

A call never waits for a key store. The first commands of a session are held here, unencrypted and in memory alone,
until its key is there; then they enter the buffer, encrypted and in their order. A publisher with a spool promises
more than memory can hold: there, such a call raises an error instead, and the caller loads the key first.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from importlib import import_module
from typing import Any, Final

from waypost.backoff import Backoff
from waypost.encryption.codec import Codec, check_size, not_loaded, read_plain
from waypost.errors import (
    BufferFullError,
    EncryptionError,
    InvalidCommandError,
    KeyErasedError,
    KeyStoreError,
    KeyWrappingError,
    MissingKeyError,
    PublisherClosedError,
)
from waypost.publisher.pending import Pending
from waypost.wire.encode import CreateParts

log = logging.getLogger("waypost")
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0


class Encrypter:
    """Encrypts commands, and holds those of sessions whose key is being loaded.

    Args:
        codec: Has the keys.
        put: Puts commands into the buffer; takes a time-out in seconds.
        lost: Called with a command that will not be sent, and the reason.
        spooled: Whether nothing may be held in memory alone.
        most_count: The most commands held.
        most_bytes: The most bytes held.
    """

    def __init__(
        self,
        codec: Codec,
        put: Callable[[Sequence[Pending], float | None], None],
        lost: Callable[[Pending, str], None],
        *,
        spooled: bool,
        most_count: int,
        most_bytes: int,
    ) -> None:
        self.last_error: str | None = None
        self.bytes = 0  # held
        self.dropped = 0  # ever
        self._codec = codec
        self._put = put
        self._lost = lost
        self._spooled = spooled
        self._most_count = most_count
        self._most_bytes = most_bytes
        self._count = 0
        self._held: dict[str, deque[tuple[Pending, int]]] = {}  # with the size that it had
        self._tasks: set[asyncio.Task[None]] = set()
        self._refreshed: set[str] = set()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return self._count

    async def start(self) -> None:
        """Belong to this event loop."""
        self._loop = asyncio.get_running_loop()
        # The parser of bodies imports pydantic, which takes too long for a call on the event loop.
        await asyncio.to_thread(import_module, "waypost.wire.decode")

    async def load(self, accepted: Sequence[Pending], timeout: float | None = None) -> None:
        """Load or make the keys that these commands need.

        Raises:
            EncryptionError: That is not possible, or takes longer than ``timeout`` seconds.
            InvalidCommandError: A body is invalid.
        """
        if sessions := self._unloaded(accepted):
            try:
                async with asyncio.timeout(timeout):
                    await self._codec.prepare(*sessions)
            except TimeoutError:
                raise KeyStoreError(
                    f"The key of session {sessions[0]!r} did not come within {timeout:g} s. The command was not "
                    "accepted"
                ) from None

    def needs_keys(self, accepted: Sequence[Pending]) -> bool:
        """Tell whether :meth:`load` would have to wait."""
        return bool(self._unloaded(accepted))

    def accept(self, accepted: Sequence[Pending], timeout: float | None) -> None:
        """Encrypt these commands of one session and put them into the buffer, or hold them until its key is there.

        Raises:
            KeyErasedError: The session's key was deleted.
            KeyNotLoadedError: Its key is not in memory, and nothing may be held there.
            InvalidCommandError: A body is invalid, or too large once it is encrypted.
            BufferFullError: There is no room.
        """
        session_id = accepted[0].session_id
        if len(accepted) == 1 and not self._held and self._encrypt_at_once(accepted[0]):
            self._put(accepted, timeout)
            return
        unloaded = self._unloaded(accepted)
        with self._lock:
            if session_id is not None and (unloaded or session_id in self._held):
                if self._spooled:
                    raise not_loaded(session_id)
                self._hold(session_id, accepted)
                return
        for pending in accepted:
            self._encrypt(pending)
        self._put(accepted, timeout)

    def _encrypt_at_once(self, pending: Pending) -> bool:
        """Encrypt a create whose key is in memory, as nearly every one's is. Leave anything else."""
        plain, session_id = pending.plain, pending.session_id
        if type(plain) is not CreateParts or session_id is None:
            return False
        if (body := self._codec.encrypted_create(plain, session_id, pending.command_id)) is None:
            return False
        pending.encrypted(body)
        if self._codec.is_stale(session_id):
            self._begin(self._refresh, session_id)
        return True

    def _unloaded(self, accepted: Sequence[Pending]) -> list[str]:
        """Return the sessions whose keys are needed and not in memory. Parse the bodies that were not parsed yet."""
        needed: set[str] = set()
        for pending in accepted:
            if pending.session_id is None or pending.body_is_encrypted:
                continue
            if pending.plain is None:
                pending.plain = read_plain(pending.command_type, pending.value)
            if pending.plain is not None:
                check_size(pending.plain)
                needed |= self._codec.origins(pending.plain, pending.session_id)
        return [session_id for session_id in needed if not self._codec.has_key(session_id)]

    def _encrypt(self, pending: Pending) -> None:
        if pending.plain is not None and pending.session_id is not None:
            pending.encrypted(
                self._codec.encrypted_body(pending.plain, pending.session_id, pending.command_id)
            )

    # Commands that wait for a key.

    def _hold(self, session_id: str, accepted: Sequence[Pending]) -> None:
        size = sum(pending.size for pending in accepted)
        if self._count + len(accepted) > self._most_count or self.bytes + size > self._most_bytes:
            raise BufferFullError(
                f"{self._count} commands wait for the keys of their sessions, and {len(accepted)} more do not fit into "
                f"the buffer. This command was not accepted. The last error of the key store: {self.last_error}"
            )
        self._count += len(accepted)
        self.bytes += size
        waiting = [(pending, pending.size) for pending in accepted]
        if (queue := self._held.get(session_id)) is not None:
            queue.extend(waiting)
        else:
            self._held[session_id] = deque(waiting)
            self._begin(self._release, session_id)

    def _begin(self, work: Callable[[str], Coroutine[Any, Any, None]], session_id: str) -> None:
        assert self._loop is not None
        # Calls may come from any thread. One from the loop's own waits for it to be free as well.
        self._loop.call_soon_threadsafe(self._run, work, session_id)

    def _run(self, work: Callable[[str], Coroutine[Any, Any, None]], session_id: str) -> None:
        task = asyncio.create_task(work(session_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _release(self, session_id: str) -> None:
        """Send what waits for the key of a session, once it is there."""
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        while (pending := self._oldest(session_id)) is not None:
            try:
                await self.load([pending])
                self.last_error = None
                self._encrypt(pending)
                self._put([pending], 0)
            except PublisherClosedError:
                return  # close() says what is left
            except BufferFullError:
                await asyncio.sleep(backoff.next_wait())
                continue
            except (KeyStoreError, KeyWrappingError, MissingKeyError) as error:
                if self.last_error is None:
                    log.warning("Keys can't be loaded, so commands wait in memory: %s", error)
                self.last_error = str(error)
                await asyncio.sleep(backoff.next_wait())
                continue
            except (EncryptionError, InvalidCommandError) as error:
                log.error("A command for session %r was not sent: %s", session_id, error)
                self.dropped += 1
                self._lost(pending, str(error))
            self._gone(session_id)
            backoff.reset()

    def _oldest(self, session_id: str) -> Pending | None:
        with self._lock:
            if queue := self._held[session_id]:
                return queue[0][0]
            del self._held[session_id]  # what comes now finds the key
            return None

    def _gone(self, session_id: str) -> None:
        with self._lock:
            _, size = self._held[session_id].popleft()
            self._count -= 1
            self.bytes -= size

    async def _refresh(self, session_id: str) -> None:
        """Look up a session's key again, because it may have been deleted."""
        if session_id in self._refreshed:
            return
        self._refreshed.add(session_id)
        try:
            await self._codec.prepare(session_id)
        except KeyErasedError:
            pass  # the next call raises it
        except EncryptionError as error:
            log.warning(
                "The key of session %r can't be looked up again, and is used on: %s", session_id, error
            )
        finally:
            self._refreshed.discard(session_id)

    async def settled(self) -> None:
        """Wait until nothing is held that was held when this was called."""
        await asyncio.sleep(0)  # a task that was scheduled on this loop can start first
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> list[Pending]:
        """Stop loading keys, and return the commands that are still held."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._codec.close()
        with self._lock:
            return [pending for queue in self._held.values() for pending, _ in queue]
