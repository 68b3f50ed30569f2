"""Structured logs: JSON lines for machines, colored lines on a terminal. Standard logging is included."""

import json
import logging
import sys
from collections.abc import Iterable, MutableMapping
from io import StringIO
from typing import Any, Final, TextIO

import structlog

from waypost.errors import printable

# A shorter secret would be found in half of all lines.
_SHORTEST: Final = 4
# Keys whose values are texts of several lines.
_OF_LINES: Final = ("exception", "stack")
# structlog's methods that are not named like a level.
_SAME: Final = {"exception": "error", "warn": "warning"}


class LogLevel:
    """The current level, which may change while the process runs. Drops entries below it."""

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


class _Masked:
    """A renderer whose lines show none of the secrets that this process knows, whatever put them there."""

    def __init__(self, renderer: structlog.types.Processor, secrets: Iterable[str]) -> None:
        self._renderer = renderer
        written = {
            form for secret in secrets for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])
        }
        self._secrets = sorted((form for form in written if len(form) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        line = str(self._renderer(logger, method, event))
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line


def _without_colours(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event.pop("color_message", None)  # uvicorn says each line a second time, for terminals
    return event


def _for_terminals(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what could steer a terminal in the values, which may come from agents; JSON escapes by itself."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = printable(value, keep="\n" if name in _OF_LINES else "")
        elif name != "exc_info" and not isinstance(value, int | float | None):
            event[name] = printable(repr(value))
    return event


def _plain_traceback(out: TextIO, exc_info: Any) -> None:
    """Print a traceback without local variables, which may hold secrets and what agents sent."""
    text = StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.write(printable(text.getvalue(), keep="\n"))


def configure_logs(level: str = "info", form: str = "auto", secrets: Iterable[str] = ()) -> LogLevel:
    """Set up structlog and the root logger of this process; for commands, never called by the library.

    No line shows one of ``secrets``, unless it is shorter than 4 characters. Return a function that changes the level
    later.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=_plain_traceback)
        if console
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    renderer = _Masked(renderer, secrets)
    finishing: list[structlog.types.Processor] = [
        _for_terminals if console else structlog.processors.format_exc_info
    ]
    in_force = LogLevel(level)
    structlog.configure(
        processors=[
            in_force,
            *shared,
            structlog.processors.StackInfoRenderer(),
            *finishing,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _without_colours],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *finishing,
                renderer,
            ],
        )
    )
    logging.getLogger().handlers[:] = [handler]
    # aiokafka logs each reconnect attempt as an error; the owner says the same once, with what it means.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return in_force
