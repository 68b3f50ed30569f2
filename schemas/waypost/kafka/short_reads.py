"""Shared by readers that occasionally query Kafka, next to the client that does the main work."""

from collections.abc import Mapping
from typing import Any, Final

from aiokafka.errors import KafkaError

#: What connections raise while brokers are unreachable or change. Asking again may work.
PASSING: Final = (KafkaError, OSError, TimeoutError)
_ACCESS: Final = ("bootstrap_servers", "client_id", "security_protocol", "ssl_context")


def access_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a Kafka client that say where brokers are and how to be let in."""
    return {key: value for key, value in options.items() if key in _ACCESS or key.startswith("sasl_")}
