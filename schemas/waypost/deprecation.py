"""Keep old public names working for one more release, with a warning that names the new one.

A deprecated name costs nothing until it is used. Names that use this module are removed in `REMOVED_IN`; see
``docs/versioning.md``.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from waypost.errors import InvalidArgumentError

#: The release that no longer has the names that are deprecated today.
REMOVED_IN: Final = "0.3"
_P = ParamSpec("_P")
_T = TypeVar("_T")


def warn_deprecated(old: str, use: str, stacklevel: int = 1) -> None:
    """Emit the DeprecationWarning for ``old``, at the caller of the function that calls this one.

    ``use`` completes the sentence "Use …". Each frame of the library in between adds one to ``stacklevel``.
    """
    warnings.warn(
        f"{old} is deprecated, and Waypost {REMOVED_IN} will not have it. Use {use}.",
        DeprecationWarning,
        stacklevel=stacklevel + 2,
    )


def _mark_deprecated(use: str) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Mark a method, or the getter of a property, as deprecated; ``use`` names what to call instead."""

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            warn_deprecated(f"{type(args[0]).__name__}.{function.__name__}", use)
            return function(*args, **kwargs)

        return call

    return decorate


if TYPE_CHECKING:
    # Type checkers know this one, and strike the old name out. It is in the standard library only since Python 3.13.
    from typing_extensions import deprecated as deprecated
else:
    deprecated = _mark_deprecated


def rename_keys(what: str, given: dict[str, Any], renamed: Mapping[str, str], stacklevel: int = 1) -> None:
    """Replace the old keys in ``given`` by the new ones, with a warning for each.

    Raises:
        InvalidArgumentError: ``given`` has a key under its old and its new name.
    """
    for old, new in renamed.items():
        if old in given:
            if new in given:
                raise InvalidArgumentError(f"{what} got {new!r} twice: {old!r} is its old name")
            warn_deprecated(f"{old!r} of {what}", repr(new), stacklevel + 1)
            given[new] = given.pop(old)


def renamed_keywords(
    retired: Mapping[str, str] | None = None, /, **renamed: str
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Let a function accept keyword arguments under their old names, given as ``old="new"``.

    Those that it no longer has, given with the reason as ``retired``, are ignored. Each one gets a warning.
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        what = function.__qualname__.removesuffix(".__init__")

        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            rename_keys(what, kwargs, renamed)
            for old, why in (retired or {}).items():
                if old in kwargs:
                    del kwargs[old]
                    warnings.warn(
                        f"{old!r} of {what} has no effect, and Waypost {REMOVED_IN} will not have it: {why}.",
                        DeprecationWarning,
                        stacklevel=2,
                    )
            return function(*args, **kwargs)

        return call

    return decorate


def moved(module: str, name: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module whose one public name is in `waypost` itself now."""

    def find(asked: str) -> Any:
        if asked != name:
            raise AttributeError(f"module {module!r} has no attribute {asked!r}")
        warn_deprecated(f"{module}.{name}", f"waypost.{name}")
        return getattr(import_module("waypost"), name)

    return find
