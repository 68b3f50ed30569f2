"""Asynchronous checkpoints for LLM agents.

Agents publish with :class:`Publisher` or :class:`SyncPublisher`, services react with :class:`Subscriber`, sessions are
read back with :class:`Reader`, and :class:`CheckpointManager` does all of it in memory. ``__all__`` is what is public;
adapters for agent frameworks are in :mod:`waypost.adapters`. Every other module may change in any release.

A name is loaded when it is first used, so importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec
    from waypost.encryption.directory import DirectoryKeyStore
    from waypost.encryption.key_store import KeyStore, StoredKey
    from waypost.encryption.postgres import PostgresKeyStore
    from waypost.encryption.wrapping import EnvironmentWrapper, FileWrapper, KeyWrapper, WrappedKey
    from waypost.errors import (
        AccessDeniedError,
        BufferFullError,
        DatabaseUnavailableError,
        DeadLetterError,
        DeliveryError,
        EncryptionError,
        InvalidArgumentError,
        InvalidCommandError,
        KafkaUnavailableError,
        KeyErasedError,
        KeyNotLoadedError,
        KeyStoreError,
        KeyWrappingError,
        MissingKeyError,
        MovedDataError,
        NaiveDatetimeError,
        PlaintextError,
        PublisherClosedError,
        ReaderClosedError,
        ReaderError,
        ReaderTimeoutError,
        ResultTimeoutError,
        SettingsError,
        ShardMapError,
        SpoolError,
        SubscriberError,
        UnauthenticDataError,
        UnknownCheckpointError,
        WaypostError,
    )
    from waypost.kafka.token_file import TokenFile
    from waypost.manager import CheckpointManager
    from waypost.model.checkpoint import Checkpoint, CheckpointDict, Summary
    from waypost.model.retention import RetentionPolicy
    from waypost.model.tenants import tenant_of
    from waypost.publisher.client import Publisher
    from waypost.publisher.options import PublisherOptions
    from waypost.publisher.stats import PublisherStats
    from waypost.publisher.sync import SyncPublisher
    from waypost.publisher.waiter import CommandResult
    from waypost.reader.client import Reader
    from waypost.reader.pages import CheckpointPage, SessionInfo, SessionPage
    from waypost.reader.session import SessionReader
    from waypost.subscriber.client import Subscriber
    from waypost.subscriber.events import Deduplicator, Event
    from waypost.subscriber.tracing import continued_trace
    from waypost.wire.json_default import json_default
    from waypost.wire.topics import CommandPosition, Topics

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "BufferFullError",
    "Checkpoint",
    "CheckpointDict",
    "CheckpointManager",
    "CheckpointPage",
    "Codec",
    "CommandPosition",
    "CommandResult",
    "DatabaseUnavailableError",
    "DeadLetterError",
    "Deduplicator",
    "DeliveryError",
    "DirectoryKeyStore",
    "EncryptionError",
    "EnvironmentWrapper",
    "Event",
    "FileWrapper",
    "InvalidArgumentError",
    "InvalidCommandError",
    "KafkaUnavailableError",
    "KeyErasedError",
    "KeyNotLoadedError",
    "KeyStore",
    "KeyStoreError",
    "KeyWrapper",
    "KeyWrappingError",
    "MissingKeyError",
    "MovedDataError",
    "NaiveDatetimeError",
    "PlaintextError",
    "PostgresKeyStore",
    "Publisher",
    "PublisherClosedError",
    "PublisherOptions",
    "PublisherStats",
    "Reader",
    "ReaderClosedError",
    "ReaderError",
    "ReaderTimeoutError",
    "ResultTimeoutError",
    "RetentionPolicy",
    "SessionInfo",
    "SessionPage",
    "SessionReader",
    "SettingsError",
    "ShardMapError",
    "SpoolError",
    "StoredKey",
    "Subscriber",
    "SubscriberError",
    "Summary",
    "SyncPublisher",
    "TokenFile",
    "Topics",
    "UnauthenticDataError",
    "UnknownCheckpointError",
    "WaypostError",
    "WrappedKey",
    "continued_trace",
    "json_default",
    "tenant_of",
]

#: Where the names are; errors are in `waypost.errors`.
_HOMES = {
    "encryption.codec": ("Codec",),
    "encryption.directory": ("DirectoryKeyStore",),
    "encryption.key_store": (
        "KeyStore",
        "StoredKey",
    ),
    "encryption.postgres": ("PostgresKeyStore",),
    "encryption.wrapping": (
        "EnvironmentWrapper",
        "FileWrapper",
        "KeyWrapper",
        "WrappedKey",
    ),
    "kafka.token_file": ("TokenFile",),
    "manager": ("CheckpointManager",),
    "model.checkpoint": ("Checkpoint", "CheckpointDict", "Summary"),
    "model.retention": ("RetentionPolicy",),
    "model.tenants": ("tenant_of",),
    "publisher.client": ("Publisher",),
    "publisher.options": ("PublisherOptions",),
    "publisher.stats": ("PublisherStats",),
    "publisher.sync": ("SyncPublisher",),
    "publisher.waiter": ("CommandResult",),
    "reader.client": ("Reader",),
    "reader.pages": ("CheckpointPage", "SessionInfo", "SessionPage"),
    "reader.session": ("SessionReader",),
    "subscriber.client": ("Subscriber",),
    "subscriber.events": ("Deduplicator", "Event"),
    "subscriber.tracing": ("continued_trace",),
    "wire.json_default": ("json_default",),
    "wire.topics": ("CommandPosition", "Topics"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
# Names that were public in 0.1; see `waypost.deprecation`.
_RENAMED = {"Page": "CheckpointPage", "Policy": "RetentionPolicy", "WaitedResult": "CommandResult"}
_MOVED = ("publisher_options", "spans", "token_file")


if not TYPE_CHECKING:  # type checkers would take it to mean that there is any name

    def __getattr__(name: str) -> Any:
        if name in __all__:
            found = getattr(import_module(f"waypost.{_HOME.get(name, 'errors')}"), name)
            globals()[name] = found
            return found
        if name in _RENAMED:
            from waypost.deprecation import warn_deprecated

            warn_deprecated(f"waypost.{name}", f"waypost.{_RENAMED[name]}")
            return __getattr__(_RENAMED[name])
        if name in _MOVED:
            return import_module(f"waypost.{name}")
        raise AttributeError(f"module 'waypost' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))]
