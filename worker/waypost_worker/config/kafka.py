"""From settings to how Kafka clients of the service reach the cluster. Asks no broker."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import SecretStr

from waypost.kafka.security import PREFIX, KafkaSecurity
from waypost_worker.config.settings import Settings
from waypost_worker.kafka.connection import Connection


def kafka_connection(settings: Settings, client_id: str = "waypost-worker") -> Connection:
    """Return how to reach the cluster; SettingsError if settings contradict each other or files can't be used."""
    return Connection(
        settings.bootstrap_servers,
        request_timeout=settings.request_timeout,
        client_id=client_id,
        security=kafka_security(settings),
    )


def kafka_security(settings: Settings) -> Mapping[str, Any]:
    """Return the options of any aiokafka client that say how it is protected; SettingsError as above."""
    given = {one.name: getattr(settings, PREFIX + one.name) for one in fields(KafkaSecurity)}
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in given.items()
    }
    return KafkaSecurity(**plain).options()
