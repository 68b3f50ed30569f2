"""Which types a checkpoint of the Microsoft Agent Framework may hold, and how its values are read without pickle.

The framework writes JSON where JSON can carry a value, and a pickle with the name of its type where it can't. Its own
reader lets a pickle call each class of ``agent_framework`` and ``openai.types``, and imports their modules on demand;
it calls that a mitigation, not a boundary. Here, classes are only found among those that are imported already, and
the framework's get their attributes without a constructor.
"""

import base64
import binascii
import dataclasses
import enum
import importlib
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from agent_framework._workflows import _checkpoint_encoding
from pydantic import BaseModel

from waypost.adapters._strict_pickle import Known, Role, load
from waypost.adapters.allowed_types import DecodeError, by_name, resolved, shown

PARAMETER: Final = "allowed_checkpoint_types of WaypostCheckpointStorage"

_FRAMEWORK: Final = ("agent_framework.", "agent_framework_orchestrations.")
_OPENAI: Final = "openai.types."
# The framework's classes for data that are neither dataclasses nor enums nor Pydantic models.
_DATA: Final = frozenset(
    {
        "agent_framework._sessions:AgentSession",
        "agent_framework._types:AgentResponse",
        "agent_framework._types:AgentResponseUpdate",
        "agent_framework._types:ChatResponse",
        "agent_framework._types:ChatResponseUpdate",
        "agent_framework._types:Content",
        "agent_framework._types:Embedding",
        "agent_framework._types:GeneratedEmbeddings",
        "agent_framework._types:Message",
        "agent_framework._workflows._events:WorkflowEvent",
        "agent_framework_orchestrations._magentic:MagenticResetSignal",
    }
)
# The modules with the stored classes of the framework's own executors. It imports them on demand, a reader does not.
_MODULES: Final = (
    "agent_framework._sessions",
    "agent_framework._types",
    "agent_framework._workflows._agent_executor",
    "agent_framework._workflows._checkpoint",
    "agent_framework._workflows._events",
    "agent_framework._workflows._runner_context",
    "agent_framework._workflows._workflow_executor",
)
_PICKLE: Final = "__pickled__"
_TYPE: Final = "__type__"


class ValueDecoder:
    """Reads what the framework's ``encode_checkpoint_value`` wrote, of these types and the framework's own."""

    def __init__(self, allowed_types: Iterable[type | str]) -> None:
        for module in _MODULES:
            with suppress(ImportError):  # they are private, and may move
                importlib.import_module(module)
        self._own = by_name(resolved(allowed_types, PARAMETER), lambda each: each.__qualname__, PARAMETER)

    def decoded(self, value: Any) -> Any:
        """Return the value. DecodeError if it holds another type, or can't be read."""
        try:
            return self._decoded(value)
        except RecursionError:
            raise DecodeError("it is nested too deeply") from None

    def _decoded(self, value: Any) -> Any:
        # In loops: a comprehension needs another stack frame, and the framework's encoder recurses as deep as the stack
        # allows.
        if isinstance(value, list):
            items = []
            for each in value:
                items.append(self._decoded(each))
            return items
        if not isinstance(value, dict):
            return value
        if _PICKLE not in value or _TYPE not in value:
            members = {}
            for key, each in value.items():
                members[key] = self._decoded(each)
            return members
        found = load(_raw(value[_PICKLE]), self._find)
        if _key(type(found)) != value[_TYPE]:
            raise DecodeError(
                f"its pickle has the type '{shown(_key(type(found)))}', not {shown(repr(value[_TYPE]))}"
            )
        return found

    def _find(self, module: str, name: str) -> Known | None:
        if (own := self._own.get((module, name))) is not None:
            return Known(own, Role.APPLICATION)
        # Types that the application registered with the framework for every storage.
        if f"{module}:{name}" in getattr(_checkpoint_encoding, "_REGISTERED_CHECKPOINT_TYPE_KEYS", ()):
            registered = _imported_class(module, name)
            return None if registered is None else Known(registered, Role.APPLICATION)
        if module.startswith((*_FRAMEWORK, _OPENAI)):
            found = _imported_class(module, name)
            if found is not None and _is_data(found):
                return Known(found, Role.DATA)
        return None


def _imported_class(module: str, name: str) -> type | None:
    """Return a class by its qualified name, if its module is imported and it is the one of that name."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        # Not getattr: modules of the framework import others when they are asked for a name.
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) and _key(found) == f"{module}:{name}" else None


def _is_data(cls: type) -> bool:
    """Tell whether a class of the framework or of OpenAI's types holds data and does nothing by itself."""
    if cls.__module__.startswith(_OPENAI):
        return issubclass(cls, BaseModel)
    return (
        _key(cls) in _DATA or dataclasses.is_dataclass(cls) or issubclass(cls, enum.Enum | BaseModel)
    ) and not issubclass(cls, type)


def _key(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _raw(encoded: Any) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise DecodeError("its pickle is not base64") from None
