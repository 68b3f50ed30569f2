"""Waypost: asynchronous, message-driven checkpoints for LLM agents.

Agents publish with :class:`Publisher` or :class:`SyncPublisher`, services react with :class:`Subscriber`,
sessions are read back with :class:`Reader`, and :class:`CheckpointManager` does all of it in memory. What is
named here is loaded when it is first used, so importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from waypost.errors import (
        BufferFullError,
        DeadLetterError,
        DeliveryError,
        InvalidCommandError,
        NaiveDatetimeError,
        PublisherClosedError,
        ReaderClosedError,
        ResultTimeoutError,
        SpoolError,
        UnknownCheckpointError,
        WaypostError,
    )
    from waypost.manager import CheckpointManager
    from waypost.model.checkpoint import Checkpoint
    from waypost.model.retention import RetentionPolicy
    from waypost.publisher.client import Publisher
    from waypost.publisher.stats import PublisherStats
    from waypost.publisher.sync import SyncPublisher
    from waypost.publisher.waiter import CommandResult
    from waypost.reader.client import Reader
    from waypost.reader.pages import CheckpointPage, SessionInfo, SessionPage
    from waypost.reader.session import SessionReader
    from waypost.subscriber.client import Subscriber
    from waypost.subscriber.events import Deduplicator, Event
    from waypost.wire.topics import CommandPosition, Topics

__version__ = "0.1.0"

_HOMES = {
    "publisher.waiter": ("CommandResult",),
    "model.checkpoint": ("Checkpoint",),
    "errors": (
        "BufferFullError",
        "DeadLetterError",
        "DeliveryError",
        "InvalidCommandError",
        "NaiveDatetimeError",
        "PublisherClosedError",
        "ReaderClosedError",
        "ResultTimeoutError",
        "SpoolError",
        "UnknownCheckpointError",
        "WaypostError",
    ),
    "subscriber.events": ("Deduplicator", "Event"),
    "manager": ("CheckpointManager",),
    "publisher.client": ("Publisher",),
    "publisher.stats": ("PublisherStats",),
    "reader.client": ("Reader",),
    "reader.pages": ("CheckpointPage", "SessionInfo", "SessionPage"),
    "model.retention": ("RetentionPolicy",),
    "reader.session": ("SessionReader",),
    "subscriber.client": ("Subscriber",),
    "publisher.sync": ("SyncPublisher",),
    "wire.topics": ("CommandPosition", "Topics"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
#: Old names of this package, until the next release but one.
_RENAMED = {"Page": "CheckpointPage", "Policy": "RetentionPolicy", "WaitedResult": "CommandResult"}

__all__ = [
    "BufferFullError",
    "Checkpoint",
    "CheckpointManager",
    "CheckpointPage",
    "CommandPosition",
    "CommandResult",
    "DeadLetterError",
    "Deduplicator",
    "DeliveryError",
    "Event",
    "InvalidCommandError",
    "NaiveDatetimeError",
    "Publisher",
    "PublisherClosedError",
    "PublisherStats",
    "Reader",
    "ReaderClosedError",
    "ResultTimeoutError",
    "RetentionPolicy",
    "SessionInfo",
    "SessionPage",
    "SessionReader",
    "SpoolError",
    "Subscriber",
    "SyncPublisher",
    "Topics",
    "UnknownCheckpointError",
    "WaypostError",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from waypost.deprecation import warn_deprecated

        warn_deprecated(f"waypost.{name}", f"waypost.{_RENAMED[name]}")
        return globals().get(_RENAMED[name]) or __getattr__(_RENAMED[name])
    if name not in _HOME:
        raise AttributeError(f"module 'waypost' has no attribute {name!r}")
    found = getattr(import_module(f"waypost.{_HOME[name]}"), name)
    globals()[name] = found
    return found
