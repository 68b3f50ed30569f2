"""Names of LangGraph threads, and what a saver knows of the values that are stored in them. Pure."""

import base64
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from waypost.adapters.records import is_hashed, session_of
from waypost.errors import InvalidCommandError

PREFIX: Final = "langgraph/"
_NAME_BYTES: Final = 4_000
_THREADS: Final = 1_000
_VALUES: Final = 2_000  # of a thread


def session_of_thread(thread_id: str) -> str:
    """Return the session of a thread.

    Raises:
        InvalidCommandError: The thread's id is too long.
    """
    size = len(thread_id.encode(errors="surrogatepass"))
    if size > _NAME_BYTES:
        raise InvalidCommandError(
            "too-large",
            f"thread_id has {size} bytes, at most {_NAME_BYTES} are allowed. Nothing was stored or read",
        )
    return session_of(PREFIX, thread_id)


def name_metadata(session_id: str, thread_id: str) -> dict[str, str]:
    """Return the metadata that tell a thread's id where its session's id can't."""
    if not is_hashed(PREFIX, session_id):
        return {}
    encoded = thread_id.encode(errors="surrogatepass")
    if (
        "\0" in thread_id or b"\xed" in encoded
    ):  # U+0000, or maybe half a character, which metadata can't hold
        return {"thread64": base64.b64encode(encoded).decode()}
    return {"thread": thread_id}


def thread_of(session_id: str, metadata: Mapping[str, Any]) -> str:
    """Return the id of the thread that a checkpoint's record belongs to."""
    with suppress(TypeError, ValueError):  # other writers to the topic can put in any other value
        if (encoded := metadata.get("thread64")) is not None:
            return base64.b64decode(encoded, validate=True).decode(errors="surrogatepass")
    return str(metadata.get("thread", session_id.removeprefix(PREFIX)))


class KnownValues:
    """The digests of values that are stored, as this process knows, and when it knew. Times are seconds."""

    def __init__(self, trusted_seconds: float) -> None:
        self._trusted = trusted_seconds
        self._threads: OrderedDict[str, dict[str, float]] = OrderedDict()

    def note(self, session_id: str, digests: Iterable[str], now: float) -> None:
        """Note that these values were needed by the newest checkpoint of their namespace, then or later."""
        known = self._threads.setdefault(session_id, {})
        self._threads.move_to_end(session_id)
        for digest in digests:
            known[digest] = max(now, known.get(digest, now))
        if len(known) > _VALUES:
            self._threads[session_id] = {each: at for each, at in known.items() if now - at < self._trusted}
        while len(self._threads) > _THREADS:
            self._threads.popitem(last=False)

    def trusted(self, session_id: str, now: float) -> Collection[str]:
        """Return the digests of values that no clean-up removes before a put that begins now is applied."""
        known = self._threads.get(session_id, {})
        return {each for each, at in known.items() if now - at < self._trusted}

    def forget(self, session_id: str) -> None:
        """Forget everything about a thread."""
        self._threads.pop(session_id, None)
