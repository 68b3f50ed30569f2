"""Structured logs: JSON lines for machines, coloured lines on a terminal. Standard logging goes the same way."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

# structlog's methods that are not named like a level.
_SAME: Final = {"exception": "error", "warn": "warning"}


class LogLevel:
    """The level in force, which may change while the process runs. Drops what is below it."""

    def __init__(self, name: str) -> None:
        self.configured = name
        self.set(name)

    def set(self, name: str) -> None:
        """Log ``debug``, ``info``, ``warning`` or ``error`` and what is above."""
        self.name = name
        self._number = logging.getLevelNamesMapping()[name.upper()]
        logging.getLogger().setLevel(self._number)

    def __call__(
        self, logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """As a processor of structlog, the first of all."""
        if logging.getLevelNamesMapping()[_SAME.get(method, method).upper()] < self._number:
            raise structlog.DropEvent
        return event


def configure_logs(level: str = "info", form: str = "auto") -> LogLevel:
    """Set up structlog and the root logger of this process; for commands, never called by the library.

    What is returned changes the level later.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(sort_keys=False)
    )
    in_force = LogLevel(level)
    structlog.configure(
        processors=[
            in_force,
            *shared,
            structlog.processors.StackInfoRenderer(),
            *([] if console else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.getLogger().handlers[:] = [handler]
    # aiokafka logs each reconnect attempt as an error; the owner says the same once, with what it means.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return in_force
