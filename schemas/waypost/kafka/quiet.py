"""Keep what aiokafka logs about Waypost's own clients out of a program's log.

aiokafka logs each attempt to connect as an error, several per second while Kafka is unreachable. Waypost logs the
outage in one line. Other aiokafka clients of the same program log as before. So do Waypost's if the level of the logger
``waypost`` is ``DEBUG``.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from typing_extensions import override

log = logging.getLogger("waypost")
_AGAIN_SECONDS: Final = 60.0
_LOGGERS: Final = (
    "aiokafka",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.producer.producer",
    "aiokafka.producer.sender",
)


class OutageLog:
    """One line about a Kafka that can't be reached, at most every minute, once ``enabled``."""

    def __init__(self, consequence: str) -> None:
        self.enabled = False
        self._consequence = consequence
        self._logged_at = float("-inf")

    def tell(self, why: str) -> None:
        """Log that a broker can't be reached, unless that was logged a moment ago."""
        now = time.monotonic()
        if self.enabled and now - self._logged_at >= _AGAIN_SECONDS:
            self._logged_at = now
            log.warning("A Kafka broker is unreachable; %s. Retrying. %s", self._consequence, why)


# Tasks and connections copy the context of what starts them, so those of a client know that they are Waypost's.
_silenced: ContextVar[bool] = ContextVar("waypost_kafka_client", default=False)


class _OthersOnly(logging.Filter):
    @override
    def filter(self, record: logging.LogRecord) -> bool:
        return not _silenced.get() or log.isEnabledFor(logging.DEBUG)


_others_only: Final = _OthersOnly()
for _name in _LOGGERS:
    # A filter of a logger sees what is logged there, and not what its children log.
    logging.getLogger(_name).addFilter(_others_only)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the Kafka clients that are started within, and all that they start, for as long as they live."""
    token = _silenced.set(True)
    try:
        yield
    finally:
        _silenced.reset(token)
