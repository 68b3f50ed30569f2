"""What the tests of the adapters share."""

from typing import Any

from tests.harness import Deployment

from waypost.adapters import Backend


def running_backend(world: Deployment, **options: Any) -> Backend:
    """A backend of this deployment, to be started with ``async with`` or ``with``."""
    return Backend(world.endpoints.bootstrap_servers, world.dsn, prefix=world.topics.prefix, **options)
