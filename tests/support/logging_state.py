"""Logging as it was: what a command configures for its own process must not outlive it in the one that runs tests."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def logs_as_before() -> Iterator[None]:
    """Undo whatever is configured meanwhile."""
    root, client = logging.getLogger(), logging.getLogger("aiokafka")
    handlers, level, client_level = root.handlers[:], root.level, client.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        client.setLevel(client_level)
        structlog.reset_defaults()
