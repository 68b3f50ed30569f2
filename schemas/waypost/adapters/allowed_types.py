"""The types that an adapter builds from stored data, and the errors about all others.

Stored data names types by text, and any writer to the topic can choose that text. So a name is only looked up among
classes that are known beforehand, the framework's own and those that the application allowed; it is never imported.
Knows no framework.
"""

import importlib
import typing
from collections.abc import Callable, Iterable
from typing import Final

from waypost.errors import InvalidArgumentError, WaypostError, printable

_SHOWN: Final = 200  # characters of a name or a reason in a message
_NAMES: Final = 10  # in one message


class UnreadableValueError(WaypostError):
    """A value that can't be read back: damaged, foreign, or no longer fit for its type.

    A write raises it before anything is stored. A read raises it and leaves what is stored as it is.
    """


class MissingValueError(UnreadableValueError):
    """A checkpoint needs a value that is no longer stored. It is never read without it."""


class TypeNotAllowedError(UnreadableValueError):
    """A value of a type that the adapter was not allowed to build. ``type_names`` has each as "module:qualname".

    A write raises it before anything is stored, a read before anything is imported, built or run.
    """

    def __init__(self, message: str, type_names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.type_names = type_names


class DecodeError(Exception):
    """Inside the adapters: why a value was not decoded, and which types were not allowed, if that is why."""

    def __init__(self, reason: str, type_names: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.type_names = type_names

    def on_read(self, parameter: str) -> UnreadableValueError:
        """Return the error of a read. ``parameter`` names where types are allowed."""
        if not self.type_names:
            return UnreadableValueError(
                f"A stored value can't be read: {self.reason}. It was left as it is, and nothing was run."
            )
        types, which, them = self._told("which is not allowed", "which are not allowed", "it")
        return TypeNotAllowedError(
            f"A stored value has the {types}, {which}. Nothing was imported or run. If it is your own, add {them} to "
            f"{parameter}. If not, somebody else wrote this value.",
            self.type_names,
        )

    def on_write(self, parameter: str) -> UnreadableValueError:
        """Return the error of a write. ``parameter`` names where types are allowed."""
        if not self.type_names:
            return UnreadableValueError(f"A value could not be read back: {self.reason}. Nothing was stored.")
        types, are, them = self._told("is", "are", "the name, or the class itself,")
        return TypeNotAllowedError(
            f"The {types} {are} not allowed, so the value could not be read back. Nothing was stored. Add {them} to "
            f"{parameter}, here and wherever the value is read.",
            self.type_names,
        )

    def _told(self, one: str, more: str, it: str) -> tuple[str, str, str]:
        names = ", ".join(f"'{name}'" for name in self.type_names)
        if len(self.type_names) == 1:
            return f"type {names}", one, it
        return f"types {names}", more, "them" if it == "it" else "the names, or the classes themselves,"


def not_allowed(*keys: tuple[str, str]) -> DecodeError:
    """Return the error about types, by module and name, that were asked for and are not allowed."""
    names = tuple(shown(f"{module}:{name}") for module, name in keys)
    return DecodeError("its type is not allowed", names[:_NAMES])


def rebuilding_failed(module: str, name: str, error: BaseException) -> DecodeError:
    """Return the error about an allowed type that rejected the stored data."""
    why = shown(f"{type(error).__name__}: {error}")
    return DecodeError(f"its type '{shown(f'{module}:{name}')}' rejects the stored data ({why})")


def shown(text: str) -> str:
    """Shorten ``text`` from a stranger and make it printable, for a message."""
    return printable(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def resolved(allowed: Iterable[type | str], parameter: str) -> list[type]:
    """Return the classes of an allow list of classes and "module:qualname" strings, which are imported now.

    Raises:
        InvalidArgumentError: If an entry names no class. The message names the entry and ``parameter``.
    """
    if isinstance(allowed, str | type):
        raise InvalidArgumentError(f"{parameter} is a list, such as [{allowed!r}], not a single {allowed!r}")
    return [_class_of(entry, parameter) for entry in allowed]


def by_name(
    classes: Iterable[type], name: Callable[[type], str], parameter: str
) -> dict[tuple[str, str], type]:
    """Return the classes by their module and what a framework stores as their name.

    Raises:
        InvalidArgumentError: If two of them would be stored under the same name.
    """
    found: dict[tuple[str, str], type] = {}
    for each in classes:
        key = (each.__module__, name(each))
        if found.setdefault(key, each) is not each:
            raise InvalidArgumentError(
                f"{parameter} has two classes that are stored as {key[0]}:{key[1]}, so they could not be "
                "distinguished when they are read. Rename one of them"
            )
    return found


def _class_of(entry: type | str, parameter: str) -> type:
    found = _imported(entry, parameter) if isinstance(entry, str) else entry
    if not isinstance(found, type):
        raise InvalidArgumentError(
            f"{parameter} has {entry!r}, which is not a class but a {type(found).__name__}. Only classes can be "
            "allowed, as themselves or as 'module:qualname'"
        )
    if typing.is_typeddict(found):
        raise InvalidArgumentError(
            f"{parameter} has the TypedDict {entry!r}. Its values are plain dicts, which are always allowed: "
            "list the classes of its fields instead"
        )
    return found


def _imported(entry: str, parameter: str) -> object:
    module, colon, qualname = entry.partition(":")
    if not (module and colon and qualname):
        raise InvalidArgumentError(
            f"{parameter} has {entry!r}. A type is named 'module:qualname', such as 'my_app.state:Draft'"
        )
    try:
        found: object = importlib.import_module(module)
    except ImportError as error:
        raise InvalidArgumentError(
            f"{parameter} has {entry!r}, but {module!r} can't be imported: {error}"
        ) from error
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise InvalidArgumentError(
                f"{parameter} has {entry!r}, but {module!r} has no {qualname!r}"
            ) from None
    return found
