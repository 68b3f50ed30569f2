"""Summaries of Claude's sessions: folded batch by batch as a transcript grows, and stored with the newest batch. Pure.

The SDK's fold depends on the order of batches, and a process sees only its own without asking. So a stored summary says
how many batches it was folded from and which one was the first. If that is all there are, it is whole. If another
process added one in between, it is not, and is folded again from the transcript.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from claude_agent_sdk import SessionKey, SessionStoreEntry, SessionSummaryEntry, fold_session_summary

from waypost.errors import InvalidCommandError
from waypost.wire.encode import metadata_json

_REMEMBERED: Final = 1_000  # sessions
_LONGEST: Final = 4 * 1024  # bytes of JSON, of the 16 KB that metadata may have


class Running(NamedTuple):
    """The summary of a transcript's first ``batches`` batches. ``first`` is the tag of the first one."""

    first: str
    batches: int
    entry: SessionSummaryEntry

    def metadata(self) -> dict[str, Any]:
        """Return what the newest batch says of it; without a summary that metadata can't hold."""
        said: dict[str, Any] = {"first": self.first, "batches": self.batches}
        try:
            if len(metadata_json(self.entry["data"])) <= _LONGEST:
                said["data"] = self.entry["data"]
        except InvalidCommandError:
            pass
        return said


def folded(key: SessionKey, first: str, batches: Sequence[list[SessionStoreEntry]]) -> Running:
    """Return the summary of all batches of a transcript."""
    entries = [entry for batch in batches for entry in batch]
    return Running(first, len(batches), fold_session_summary(None, key, entries))


def stored(session_id: str, said: Any, first: str, batches: int, mtime: int) -> SessionSummaryEntry | None:
    """Return a stored summary of all ``batches`` batches, or None if it is not one."""
    if not isinstance(said, Mapping) or (said.get("first"), said.get("batches")) != (first, batches):
        return None
    data = said.get("data")
    return {"session_id": session_id, "mtime": mtime, "data": data} if isinstance(data, dict) else None


class RunningSummaries:
    """The summaries of the transcripts that this process used last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Running] = OrderedDict()

    def of(self, session: str) -> Running | None:
        """Return the summary of a session's transcript, as far as this process knows."""
        return self._known.get(session)

    def grown(self, session: str, key: SessionKey, tag: str, batch: list[SessionStoreEntry]) -> Running:
        """Return the summary with one more batch. If this process knows of none, it is taken for the first."""
        known = self._known.get(session)
        if known is None:
            return folded(key, tag, [batch])
        return Running(known.first, known.batches + 1, fold_session_summary(known.entry, key, batch))

    def put(self, session: str, running: Running) -> None:
        """Remember a summary."""
        self._known[session] = running
        self._known.move_to_end(session)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, session: str) -> None:
        """Forget a session: it is not known what became of its last batch, or it was deleted."""
        self._known.pop(session, None)
