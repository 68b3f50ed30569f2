"""Shared by readers that occasionally query Kafka, next to the client that does the main work."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

#: What a consumer raises while brokers are unreachable or change. Asking again may work.
PASSING: Final = (KafkaError, OSError, TimeoutError, AssertionError, KeyError)
_ACCESS: Final = ("bootstrap_servers", "client_id", "security_protocol", "ssl_context")
_CLOSE_SECONDS: Final = 1.0


def access_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a Kafka client that say where brokers are and how to be let in."""
    return {key: value for key, value in options.items() if key in _ACCESS or key.startswith("sasl_")}


async def close_soon(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer that has nothing to commit. Its own farewell may wait for a broker, but not for long."""
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await consumer.stop()
