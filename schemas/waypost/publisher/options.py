"""Options of both publishers, in one place: names, types, defaults, and rejected values."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict

from waypost.arguments import checked_path, require_above_zero
from waypost.encryption import require_codec
from waypost.errors import InvalidArgumentError, did_you_mean, quoted
from waypost.model.limits import MAX_SOURCE, Default, checked_default, require_sendable_options, text_problem
from waypost.wire.topics import DEFAULT_PREFIX

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec

#: Called with a command id, and None once Kafka has the command or the error that keeps it out.
OnFull = Literal["raise", "block", "drop_oldest"]


OnDelivery = Callable[[str, BaseException | None], None]
DEFAULT_SOURCE: Final = "/waypost/publisher"
DEFAULT_COUNT: Final = 100_000
DEFAULT_BYTES: Final = 64 * 1024 * 1024
DEFAULT_SPOOL_BYTES: Final = 1024 * 1024 * 1024


class PublisherOptions(TypedDict, total=False):
    """Keyword arguments of :class:`waypost.Publisher` and :class:`waypost.SyncPublisher`.

    ``topic_prefix``
        Prefix of the two topics (default: ``waypost``).
    ``source``
        The ``ce_source`` of the commands (default: ``/waypost/publisher``).
    ``max_buffer_count``, ``max_buffer_bytes``
        The most commands and bytes in memory (default: 100,000 and 64 MiB).
    ``spool``
        A directory on a local disk in which each command is kept until Kafka has it, so that nothing accepted is lost
        however the process dies. Use one for each deployment (default: None, no spool).
    ``max_spool_bytes``
        The most bytes of commands in the spool (default: 1 GiB). Its files take up to twice as much and 40 MB more.
    ``spool_fsync``
        Whether what is in the spool also survives a power failure (default: False). A call of a SyncPublisher then
        returns once the disk has the command; on an event loop, ``await publisher.persisted()``.
    ``on_full``
        What a call does if the memory is full, or with a spool if that is full: ``"raise"`` a BufferFullError
        (default), ``"block"``, or ``"drop_oldest"``, which gives up the oldest command that is not being sent.
    ``on_delivery``
        A function that is called with each command id and None once Kafka has the command, or a DeliveryError if it
        was refused, dropped, or lost when the publisher closed. It is not called for commands that stay in the spool.
    ``default``
        A function that is called with each value of ``data`` and ``metadata`` that JSON lacks, such as a datetime, and
        returns one that it has, or raises TypeError. :func:`waypost.json_default` converts the usual ones (default:
        None, such values are rejected).
    ``codec``
        A :class:`waypost.Codec` that encrypts the data of all checkpoints (default: None, or that of the deployment if
        no brokers are given).
    ``kafka_options``
        Options of the Kafka client: ``security_protocol``, ``ssl_context``, ``sasl_…``, ``client_id``,
        ``compression_type``, ``request_timeout_ms``.
    """

    topic_prefix: str
    source: str
    max_buffer_count: int
    max_buffer_bytes: int
    spool: str | os.PathLike[str] | None
    max_spool_bytes: int
    spool_fsync: bool
    on_full: OnFull
    on_delivery: OnDelivery | None
    default: Default | None
    codec: "Codec | None"
    kafka_options: Mapping[str, Any] | None


#: What these options were called before.
RENAMED_OPTIONS: Final = {"prefix": "topic_prefix", "options": "kafka_options"}

#: #: Options that no longer have an effect, and why.
RETIRED_OPTIONS: Final = {
    "durability": "with spool=, every command is on the disk before its call returns",
    "spool_after": "with spool=, every command is on the disk before its call returns",
    "adopt_after": "what dead publishers left is sent by the next one that starts, or by 'waypost spool drain'",
}


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """:class:`PublisherOptions` with their defaults. An InvalidArgumentError names an invalid option."""

    topic_prefix: str = DEFAULT_PREFIX
    source: str = DEFAULT_SOURCE
    max_buffer_count: int = DEFAULT_COUNT
    max_buffer_bytes: int = DEFAULT_BYTES
    spool: str | os.PathLike[str] | None = None
    max_spool_bytes: int = DEFAULT_SPOOL_BYTES
    spool_fsync: bool = False
    on_full: OnFull = "raise"
    on_delivery: OnDelivery | None = None
    default: Default | None = None
    codec: "Codec | None" = None
    kafka_options: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, options: PublisherOptions) -> Self:
        """Return the settings with these options. Raise InvalidArgumentError for one that does not exist."""
        for name in options:
            if name not in PublisherOptions.__annotations__:
                near = did_you_mean(name, PublisherOptions.__annotations__)
                raise InvalidArgumentError(f"a publisher has no option {quoted(name)}.{near}")
        return cls(**options)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or (problem := text_problem(self.source, MAX_SOURCE)) is not None:
            said = problem if isinstance(self.source, str) else f"must be a string, not {quoted(self.source)}"
            raise InvalidArgumentError(f"source {said}")
        require_sendable_options({} if self.kafka_options is None else self.kafka_options)
        require_codec(self.codec)
        if self.spool is not None:
            checked_path("spool", self.spool)
        if self.on_delivery is not None and (
            not callable(self.on_delivery) or iscoroutinefunction(self.on_delivery)
        ):
            raise InvalidArgumentError("on_delivery must be a plain function: it is called, and not awaited")
        checked_default(self.default)
        for name in ("max_buffer_count", "max_buffer_bytes", "max_spool_bytes"):
            require_above_zero(name, getattr(self, name))
        if self.on_full not in ("raise", "block", "drop_oldest"):
            raise InvalidArgumentError(
                f"on_full must be 'raise', 'block' or 'drop_oldest', not {quoted(self.on_full)}"
            )
