"""Check options of the Kafka client that an application passes on, before anything is sent.

Knows which of them aiokafka accepts, and which it accepts and fails with later.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection

from waypost.arguments import require_above_zero, require_text
from waypost.errors import InvalidArgumentError, WaypostError

_CLIENT: Final = signature(AIOKafkaClient).parameters
_CONNECTION: Final = signature(AIOKafkaConnection).parameters
_TEXTS: Final = ("client_id", "sasl_plain_username", "sasl_plain_password")
# Requests carry it as a signed number of 32 bits.
_LONGEST_MS: Final = 2**31 - 1


@contextmanager
def rejecting_options() -> Iterator[None]:
    """Raise InvalidArgumentError for what a client raises that is made with options that it does not accept."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, AttributeError, AssertionError, RuntimeError) as error:
        why = f"{error}" if str(error) else type(error).__name__
        raise InvalidArgumentError(
            f"the Kafka client does not accept these options: {why}. Nothing was connected. Correct the kafka_options"
        ) from (None if isinstance(error, WaypostError) else error)


def require_client_options(client: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise what :func:`rejecting_options` translates if this client of aiokafka would not accept these options."""
    signature(client).bind(**options)
    require_access_options(options)


def require_access_options(options: Mapping[str, Any]) -> None:
    """Do the same if no connection can be made with these options. Call it on an event loop."""
    for name in _TEXTS:
        if options.get(name) is not None:
            require_text(name, options[name])
    if not isinstance(options.get("ssl_context"), ssl.SSLContext | None):
        raise InvalidArgumentError("ssl_context must be an ssl.SSLContext")
    timeout = options.get("request_timeout_ms", _LONGEST_MS)
    require_above_zero("request_timeout_ms", timeout)
    if timeout > _LONGEST_MS:
        raise InvalidArgumentError(f"request_timeout_ms must be at most {_LONGEST_MS}")
    AIOKafkaClient(**{name: value for name, value in options.items() if name in _CLIENT})
    AIOKafkaConnection("", 0, **{name: value for name, value in options.items() if name in _CONNECTION})
