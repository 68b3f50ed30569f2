"""Checks of the arguments of public calls. Each raises InvalidArgumentError, which names the argument."""

import os
from operator import index
from pathlib import Path

from waypost.errors import InvalidArgumentError, quoted


def require_text(what: str, text: str) -> None:
    """Raise InvalidArgumentError for what is not text. It is not shown: it may be a password as bytes."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{what} must be a string, not {type(text).__name__}")


def require_above_zero(what: str, number: float) -> None:
    """Raise InvalidArgumentError for what is not a number above 0. NaN is not."""
    try:
        fits = number > 0
    except TypeError:
        fits = False
    if not fits:
        raise InvalidArgumentError(f"{what} must be above 0, not {quoted(number)}")


def require_whole(what: str, number: int, least: int, most: int | None = None) -> None:
    """Raise InvalidArgumentError for what is not a whole number from ``least`` to ``most``."""
    try:
        fits = index(number) >= least
    except TypeError:
        raise InvalidArgumentError(f"{what} must be a whole number, not {quoted(number)}") from None
    if not fits:
        raise InvalidArgumentError(f"{what} must be at least {least}, not {quoted(number)}")
    if most is not None and number > most:
        raise InvalidArgumentError(f"{what} must be at most {most:,}, not {quoted(number)}")


def require_timeout(timeout: float | None, what: str = "timeout", *, optional: bool = True) -> None:
    """Raise InvalidArgumentError for what is not a number of seconds, nor None if that is allowed. NaN is not."""
    try:
        fits = optional if timeout is None else timeout == timeout + 0
    except TypeError:
        fits = False
    if not fits:
        raise InvalidArgumentError(f"{what} must be a number of seconds, not {quoted(timeout)}")


def require_callable(what: str, function: object) -> None:
    """Raise InvalidArgumentError for what can't be called."""
    if not callable(function):
        raise InvalidArgumentError(f"{what} must be a function, not {quoted(function)}")


def checked_path(what: str, path: str | os.PathLike[str]) -> Path:
    """Return a path. Raise InvalidArgumentError for what no file can be called."""
    try:
        found = Path(path)
        os.fsencode(found)
    except (TypeError, UnicodeError):
        raise InvalidArgumentError(f"{what} must be a path, not {quoted(path)}") from None
    if "\0" in str(found):
        raise InvalidArgumentError(f"{what} contains a NUL, which is not allowed in a path: {quoted(path)}")
    return found
