"""LangGraph's serializer, made strict: it writes what it can read back, and builds nothing that was not allowed.

LangGraph's own serializer imports and calls whatever a stored value names. This one writes the same bytes, but reads
them with a table: a name that is not in it is an error. The table is made with the serializer, so reading imports
nothing that a value names.
"""

import functools
import importlib
import ipaddress
import json
import pathlib
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from typing_extensions import override

from waypost.adapters.allowed_types import (
    DecodeError,
    by_name,
    not_allowed,
    rebuilding_failed,
    resolved,
    shown,
)
from waypost.errors import InvalidArgumentError

PARAMETER: Final = "allowed_types of WaypostSaver"
Key = tuple[str, str]  # module and name, as LangGraph stores them
Build = Callable[..., Any]

# LangGraph's kinds of MessagePack extensions.
_SINGLE: Final = 0
_POSITIONAL: Final = 1
_KEYWORDS: Final = 2
_METHOD: Final = 3
_PYDANTIC_1: Final = 4
_PYDANTIC_2: Final = 5
_ARRAY: Final = 6
_DELTA: Final = 7

# LangGraph nests encoded values in encoded values, and each level is a copy of all that is in it. Without a limit, a
# value of 1 MB could take 1 GB to read.
_MAX_DEPTH: Final = 100
_COPIES: Final = 8
_FREE_BYTES: Final = 16 * 1024 * 1024

# Types that LangGraph and LangChain themselves put into checkpoints. They hold data, and do nothing when they are
# built. A test compares this with LangGraph's own list of safe types.
_FRAMEWORK: Final[Mapping[str, tuple[str, ...]]] = {
    "langchain_core.messages.base": ("BaseMessage", "BaseMessageChunk"),
    "langchain_core.messages.human": ("HumanMessage", "HumanMessageChunk"),
    "langchain_core.messages.ai": ("AIMessage", "AIMessageChunk"),
    "langchain_core.messages.system": ("SystemMessage", "SystemMessageChunk"),
    "langchain_core.messages.chat": ("ChatMessage", "ChatMessageChunk"),
    "langchain_core.messages.tool": ("ToolMessage", "ToolMessageChunk"),
    "langchain_core.messages.function": ("FunctionMessage", "FunctionMessageChunk"),
    "langchain_core.messages.modifier": ("RemoveMessage",),
    "langchain_core.documents.base": ("Document",),
    "langgraph.types": (
        *("Send", "TimeoutPolicy", "Interrupt", "Command", "StateSnapshot", "PregelTask", "Overwrite"),
    ),
    "langgraph.store.base": ("Item", "GetOp"),
}


class StrictSerializer(JsonPlusSerializer):
    """Serializer of LangGraph that reads back only LangGraph's own types, plain values and ``allowed_types``.

    ``allowed_types`` are classes or "module:qualname" strings, which are imported now. Writing a value of another
    type raises TypeNotAllowedError before anything is stored; reading one raises it before anything is imported,
    built or run. Nothing is pickled. To encrypt, wrap it: ``EncryptedSerializer(cipher, StrictSerializer(...))``.
    """

    def __init__(self, allowed_types: Iterable[type | str] = ()) -> None:
        super().__init__(allowed_msgpack_modules=None)
        _known()  # so that no read has to import it
        self._use(resolved(allowed_types, PARAMETER))

    def _use(self, allowed: list[type]) -> None:
        self._allowed = allowed
        self._own: dict[Key, Build] = {**by_name(allowed, lambda each: each.__name__, PARAMETER)}
        if re.Pattern in allowed:
            self._own[_PATTERN] = _pattern

    @override
    def with_msgpack_allowlist(self, extra_allowlist: Iterable[tuple[str, ...] | type]) -> "StrictSerializer":
        """Return a serializer that allows these types too.

        LangGraph calls it with the types of a graph's state if LANGGRAPH_STRICT_MSGPACK is set.
        """
        known = {*_known(), *self._own}
        more = [found for each in extra_allowlist if (found := _loaded_class(each)) is not None]
        more = [each for each in more if (each.__module__, each.__name__) not in known]
        if not more:
            return self
        clone = StrictSerializer()
        clone._use([*self._allowed, *dict.fromkeys(more)])
        return clone

    @override
    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, raw = super().dumps_typed(obj)
        if kind == "msgpack":
            try:
                _check(raw, self._own)
            except DecodeError as error:
                raise error.on_write(PARAMETER) from error.__cause__
        return kind, raw

    @override
    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, raw = data
        try:
            return self._loaded(kind, raw)
        except DecodeError as error:
            raise error.on_read(PARAMETER) from error.__cause__

    def _loaded(self, kind: str, raw: bytes) -> Any:
        if kind == "null":
            return None
        if kind == "bytes":
            return raw
        if kind == "bytearray":
            return bytearray(raw)
        if kind == "msgpack":
            return _decoded(raw, self._own)
        if kind == "json":
            return _plain_json(raw)
        raise DecodeError(f"it is stored as {shown(repr(kind))}, which is never read")


def require_strict(serde: SerializerProtocol) -> None:
    """Raise InvalidArgumentError if ``serde`` is LangGraph's own and builds whatever a stored value names."""
    inner = serde.serde if isinstance(serde, EncryptedSerializer) else serde
    if type(inner) is not JsonPlusSerializer:
        return
    # Encryption does not help: LangGraph's EncryptedSerializer also reads values that are not encrypted.
    if (
        inner.pickle_fallback
        or getattr(inner, "_allowed_json_modules", True) is True
        or getattr(inner, "_allowed_msgpack_modules", True) is True
    ):
        raise InvalidArgumentError(
            "this JsonPlusSerializer imports and calls whatever a stored value names, so anybody who can write to "
            "the command topic could run code in this process. Pass allowed_types=[...] instead of serde, or use "
            "StrictSerializer(allowed_types=[...]), which EncryptedSerializer can wrap as well"
        )


def _loaded_class(entry: tuple[str, ...] | type) -> type | None:
    """Return the class that LangGraph took this name from, unless it has another name in its module."""
    if isinstance(entry, type):
        return entry
    found = getattr(sys.modules.get(entry[0]), entry[1], None)
    return found if isinstance(found, type) else None


def _decoded(raw: bytes, own: Mapping[Key, Build]) -> Any:
    """Return the value of LangGraph's MessagePack."""
    try:
        return _Decoding(own, len(raw), checking=False).unpacked(raw)
    except DecodeError as error:
        if error.type_names:
            # One was enough to stop, but the error must list all of them.
            decoding = _Decoding(own, len(raw), checking=True)
            with suppress(DecodeError):
                decoding.unpacked(raw)
            if decoding.missing:
                raise not_allowed(*decoding.missing) from None
        raise


def _check(raw: bytes, own: Mapping[Key, Build]) -> None:
    """Raise DecodeError if LangGraph's MessagePack could not be decoded, with all types that are not allowed."""
    decoding = _Decoding(own, len(raw), checking=True)
    decoding.unpacked(raw)
    if decoding.missing:
        raise not_allowed(*decoding.missing)


def needed_types(kind: str, raw: bytes) -> list[str]:
    """Return the types, as "module:qualname", that must be allowed so that a stored value can be read.

    The content of an encrypted one is not examined, since only the application can read it.

    Raises:
        DecodeError: It can't be read, whatever is allowed.
    """
    if "+" in kind or kind in ("null", "bytes", "bytearray"):
        return []
    if kind == "json":
        _plain_json(raw)
        return []
    if kind != "msgpack":
        raise DecodeError(f"it is stored as {shown(repr(kind))}, which is never read")
    with suppress(ImportError):
        importlib.import_module("numpy")
    decoding = _Decoding({}, len(raw), checking=True)
    decoding.unpacked(raw)
    return [shown(":".join(key)) for key in decoding.missing]


class _Decoding:
    """The decoding of one value, from outside to inside and back. ``checking``: only what may fail is built."""

    def __init__(self, own: Mapping[Key, Build], size: int, *, checking: bool) -> None:
        self.missing: dict[Key, None] = {}  # types that are not allowed, when checking
        self._own = own
        self._free = _FREE_BYTES + _COPIES * size  # bytes that nested values may still take
        self._depth = 0
        self._checking = checking
        self._error: BaseException | None = None

    def unpacked(self, raw: bytes) -> Any:
        try:
            return ormsgpack.unpackb(raw, ext_hook=self._hook, option=ormsgpack.OPT_NON_STR_KEYS)
        except ValueError as error:
            # ormsgpack reports whatever the hook raises, even an interrupt, as a ValueError without a cause.
            if self._error is not None:
                raise self._error from self._error.__cause__
            raise DecodeError(f"it is not valid MessagePack ({error})") from None

    def _hook(self, code: int, raw: bytes) -> Any:
        self._depth += 1
        self._free -= len(raw)
        try:
            if self._depth > _MAX_DEPTH or self._free < 0:
                raise DecodeError("it is nested too deeply")
            return self._built(code, raw)
        except BaseException as error:
            if self._error is None:
                self._error = error
            raise
        finally:
            self._depth -= 1
            self._free += len(raw)

    def _built(self, code: int, raw: bytes) -> Any:
        parts = self.unpacked(raw)
        if code == _DELTA:
            return _DeltaSnapshot(parts)
        if code == _ARRAY:
            return None if self.missing else _guarded(("numpy", "ndarray"), _array, parts)
        module, name, payload, *more = _checked(code, parts)
        key = (module, name)
        if not self._allows(key):
            missing = ("re", "Pattern") if key == _PATTERN else key
            if not self._checking:
                raise not_allowed(missing)
            self.missing[missing] = None
        if self.missing:
            return None
        if code == _METHOD:
            return _guarded(key, _build, code, self._method(key, *more[:1]), payload)
        if self._checking and key in self._own:
            return self._built_whole(code, raw)
        if self._checking and module in _FRAMEWORK:
            return None  # it would take most of the time, and never fails on what it has written
        return _guarded(key, _build, code, self._own.get(key) or _known()[key], payload)

    def _allows(self, key: Key) -> bool:
        return key in self._own or key in _known()

    def _built_whole(self, code: int, raw: bytes) -> Any:
        # Nested values were only checked. An application's type needs all of them to be built.
        self._checking = False
        try:
            return self._built(code, raw)
        finally:
            self._checking = True

    def _method(self, key: Key, method: Any = None) -> Build:
        found = self._own.get(key) or _known()[key]
        if method == "fromisoformat" and isinstance(found, type) and issubclass(found, datetime):
            return found.fromisoformat
        raise DecodeError(f"it calls the method {shown(repr(method))} of '{shown(':'.join(key))}'")


def _checked(code: int, parts: Any) -> list[Any]:
    named = isinstance(parts, list) and len(parts) > 2 and all(isinstance(each, str) for each in parts[:2])
    if named and _SINGLE <= code <= _PYDANTIC_2:
        return cast("list[Any]", parts)
    raise DecodeError(f"its MessagePack extension {code} is not one that LangGraph writes")


def _guarded(key: Key, build: Build, *arguments: Any) -> Any:
    try:
        return build(*arguments)
    except DecodeError:
        raise
    except Exception as error:
        raise rebuilding_failed(*key, error) from error


def _build(code: int, build: Build, payload: Any) -> Any:
    if code in (_SINGLE, _METHOD):
        return build(payload)
    if code == _POSITIONAL:
        return build(*payload)
    return _model(build, payload) if code == _PYDANTIC_2 else build(**payload)


def _model(build: Any, payload: Any) -> Any:
    """Return a Pydantic model. Those of LangChain come back even if their checks fail, as in LangGraph."""
    try:
        return build(**payload)
    except Exception:
        if getattr(build, "__module__", None) in _FRAMEWORK:
            return build.model_construct(**payload)
        if not hasattr(build, "model_validate"):
            raise
        # LangGraph stores the names of fields, where the constructor may want aliases, and root models as they are.
        return build.model_validate(payload, by_alias=True, by_name=True)


# A regular expression must be allowed: compiling one of 1 MB can take most of an hour.
_PATTERN: Final = ("re", "compile")


@functools.cache
def _known() -> Mapping[Key, Build]:
    """Return how to build plain values and the framework's own types."""
    plain: dict[Key, Build] = {
        (each.__module__, each.__name__): each
        for each in (date, datetime, time, timedelta, timezone, UUID, Decimal, set, frozenset, deque)
    }
    for kind in ("Address", "Interface", "Network"):
        for version in ("4", "6"):
            plain["ipaddress", f"IPv{version}{kind}"] = getattr(ipaddress, f"IPv{version}{kind}")
    for module in ("pathlib", "pathlib._local"):  # the second one in Python 3.13
        plain[module, "Path"] = plain[module, "PosixPath"] = pathlib.Path
        plain[module, "WindowsPath"] = pathlib.PureWindowsPath
    plain["zoneinfo", "ZoneInfo"] = _zone
    return plain | _of_the_framework()


def _of_the_framework() -> dict[Key, Build]:
    found: dict[Key, Build] = {}
    for module, names in _FRAMEWORK.items():
        with suppress(
            ImportError
        ):  # langgraph itself is not needed to read a thread that has none of its types
            loaded = importlib.import_module(module)
            found.update({(module, name): vars(loaded)[name] for name in names if name in vars(loaded)})
    if ("langgraph.types", "Send") in found:
        found["langgraph.types", "Send"] = functools.partial(_send, found["langgraph.types", "Send"])
    return found


def _send(send: Build, node: Any, arg: Any, timeout: Any = None) -> Any:
    return send(node, arg) if timeout is None else send(node, arg, timeout=timeout)


def _pattern(pattern: Any, flags: int) -> re.Pattern[Any]:
    return re.compile(pattern, flags & ~re.DEBUG)  # which would print


_zones = functools.cache(available_timezones)


def _zone(key: Any) -> ZoneInfo:
    # ZoneInfo looks for an unknown zone in a package whose name comes from the key. A known one comes from the
    # system's files, or else from the package tzdata.
    if key not in _zones():
        raise ValueError(f"there is no time zone {key!r}")
    return ZoneInfo(key)


_DTYPE: Final = re.compile(r"[<>|=]?[biufcmMSUV]\d+(\[\w+\])?")


def _array(parts: Any) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise DecodeError(
            f"it is a NumPy array, and this process has not imported numpy. Import it, or add 'numpy:ndarray' to "
            f"{PARAMETER}"
        )
    dtype, shape, order, buffer = parts
    if not _DTYPE.fullmatch(dtype):
        raise DecodeError(f"NumPy arrays of type {shown(repr(dtype))} can't be read back")
    return numpy.frombuffer(buffer, dtype=numpy.dtype(dtype)).reshape(shape, order=order)


def _plain_json(raw: bytes) -> Any:
    try:
        # Not the bytes: json would guess their encoding, and import its codec.
        return json.loads(raw.decode(), object_hook=_no_object)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"it is not valid JSON ({shown(str(error))})") from None


def _no_object(value: dict[str, Any]) -> dict[str, Any]:
    # Waypost has never written LangGraph's old format, in which JSON names classes.
    if {"lc", "type", "id"} <= value.keys():
        named = shown(".".join(map(str, value["id"]) if isinstance(value["id"], list) else str(value["id"])))
        raise DecodeError(
            f"it is JSON that names the object '{named}', and objects are never built from JSON"
        )
    return value
