"""Whatever is stored, reading it imports nothing and calls nothing of a stranger's choice; what was written is read."""

import base64
import importlib
import pickle
import string
import struct
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, timedelta
from typing import Any

import orjson
import ormsgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send
from tests.support.hostile_values import ext, named, operations, packed, text
from tests.support.trap import UNKNOWN, Trap

from waypost.adapters import UnreadableValueError
from waypost.adapters._agent_framework_values import ValueDecoder
from waypost.adapters._langgraph_serializer import _known
from waypost.adapters._strict_pickle import load
from waypost.adapters.allowed_types import DecodeError
from waypost.adapters.langgraph import StrictSerializer
from waypost.adapters.plain import TypedValue, plain_data, plain_value

# Modules that no process of ours imports, functions that one would notice, and the names that are allowed.
_MODULES = [
    UNKNOWN,
    "antigravity",
    "this",
    "turtledemo",
    "idlelib.run",
    "os",
    "builtins",
    "subprocess",
    "langgraph",
]
_NAMES = ["Thing", "system", "exec", "Popen", "__import__", "path.join", "__class__", "fly"]
_KEYS = st.one_of(
    st.sampled_from(sorted(_known())),
    st.tuples(st.sampled_from(_MODULES), st.sampled_from(_NAMES)),
    st.tuples(st.sampled_from([key[0] for key in sorted(_known())]), st.sampled_from(_NAMES)),
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.binary(max_size=5),
    st.sampled_from(["2026-11-30", "Europe/Oslo", "antigravity/x", "../x", "10.0.0.1", "this/x"]),
)


def _named_ext(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[ormsgpack.Ext]:
    payloads = st.one_of(
        inner,
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["content", "value", "args", "key", "hour"]), inner, max_size=2),
    )
    methods = st.sampled_from(["fromisoformat", "__call__", "mro", None])
    return st.builds(
        lambda code, key, payload, method: ext(code, *key, payload, method),
        st.integers(0, 5),
        _KEYS,
        payloads,
        methods,
    )


_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(string.ascii_letters, max_size=3), inner, max_size=3),
        _named_ext(inner),
        st.builds(lambda code, value: ormsgpack.Ext(code, packed(value)), st.integers(0, 127), inner),
    ),
    max_leaves=12,
)


class _Finder:
    """Asked for each module that is not imported yet; remembers them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        self.asked.append(name + "\n" + "".join(traceback.format_stack(limit=8)))


@contextmanager
def no_imports(trap: Trap) -> Iterator[None]:
    finder = _Finder()
    before = set(sys.modules)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
    assert finder.asked == []
    assert set(sys.modules) == before
    assert not trap.sprung()


@pytest.fixture(scope="module", autouse=True)
def _used_once() -> None:
    # Libraries import parts of themselves when a function of theirs runs first, whatever its arguments.
    serde = StrictSerializer()
    for value in ([HumanMessage("x"), AIMessage("x"), Send("n", 1)], timedelta(1), UTC):
        serde.loads_typed(serde.dumps_typed(value))
    for (module, name), code in [(key, code) for key in _known() for code in (0, 2, 5)]:
        payload = [None] if code == 0 else {"an unknown parameter": [None]}
        with suppress(UnreadableValueError):
            serde.loads_typed(("msgpack", packed(ext(code, module, name, payload))))


_SETTINGS = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_the_watch_on_imports_sees_one(trap: Trap) -> None:
    with pytest.raises(AssertionError), no_imports(trap):
        importlib.import_module(UNKNOWN)


@pytest.mark.parametrize("key", ["antigravity/x", "this/x", "../../etc/passwd", "x"])
def test_a_time_zone_chooses_no_package_to_look_in(trap: Trap, key: str) -> None:
    raw = packed(ext(0, "zoneinfo", "ZoneInfo", key))
    with no_imports(trap), pytest.raises(UnreadableValueError, match="there is no time zone"):
        StrictSerializer().loads_typed(("msgpack", raw))


@_SETTINGS
@given(_VALUES)
def test_reading_a_value_imports_nothing(trap: Trap, value: Any) -> None:
    serde = StrictSerializer()
    raw = packed(value)
    with no_imports(trap):
        try:
            serde.loads_typed(("msgpack", raw))
        except UnreadableValueError as error:
            assert str(error).isprintable()  # noqa: PT017 - most values are errors, some are not
        plain = plain_value("msgpack", raw)
        orjson.dumps(plain)


@_SETTINGS
@given(st.sampled_from(["msgpack", "json", "pickle", "null", "yaml", "msgpack+aes"]), st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error(trap: Trap, kind: str, raw: bytes) -> None:
    with no_imports(trap):
        try:
            StrictSerializer().loads_typed((kind, raw))
        except UnreadableValueError as error:
            assert str(error).isprintable()  # noqa: PT017
        try:
            orjson.dumps(plain_value(kind, raw))
        except ValueError as error:
            assert str(error)  # noqa: PT017


_OPERATIONS = st.one_of(
    st.builds(
        named, st.sampled_from([*_MODULES, "datetime", "collections"]), st.sampled_from([*_NAMES, "deque"])
    ),
    st.builds(
        named,
        st.just("agent_framework._types"),
        st.sampled_from(["Message", "Content", "AgentResponse", "os"]),
    ),
    st.builds(named, st.just("agent_framework._workflows._runner_context"), st.just("MessageType")),
    st.builds(text, st.sampled_from(["standard", "x", "role", "__class__", "to_dict"])),
    st.sampled_from(
        [
            *(
                pickle.EMPTY_DICT,
                pickle.EMPTY_LIST,
                pickle.EMPTY_SET,
                pickle.EMPTY_TUPLE,
                pickle.NONE,
                pickle.MARK,
            ),
            *(pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE, pickle.NEWOBJ, pickle.NEWOBJ_EX),
            *(pickle.REDUCE, pickle.BUILD, pickle.SETITEM, pickle.SETITEMS, pickle.APPEND, pickle.APPENDS),
            *(
                pickle.ADDITEMS,
                pickle.FROZENSET,
                pickle.MEMOIZE,
                pickle.BINGET + b"\0",
                pickle.POP,
                pickle.DUP,
            ),
            *(pickle.POP_MARK, pickle.STACK_GLOBAL, pickle.OBJ, pickle.BINPERSID, pickle.EXT1 + b"\1"),
        ]
    ),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_OPERATIONS, max_size=12))
def test_reading_a_pickle_imports_nothing(trap: Trap, parts: list[bytes]) -> None:
    find = ValueDecoder([])._find
    with no_imports(trap):
        try:
            load(operations(*parts), find)
        except DecodeError as error:
            assert str(error).isprintable()  # noqa: PT017


_PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(st.characters(codec="utf-8"), max_size=300),
        st.binary(max_size=300),
        st.datetimes(),
        st.timedeltas(),
        st.uuids(),
        st.decimals(allow_nan=False),
        st.sets(st.integers(0, 9), max_size=3),
        st.ip_addresses(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=20),
        st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=40), inner, max_size=20),
        st.builds(lambda each: HumanMessage("x", additional_kwargs={"in": each}), inner),
        st.builds(lambda each: Send("node", each), inner),
    ),
    max_leaves=30,
)


@settings(max_examples=80)
@given(_PLAIN)
def test_what_is_written_is_read_as_langgraph_reads_it(value: Any) -> None:
    serde = StrictSerializer()
    typed = serde.dumps_typed(value)
    assert serde.loads_typed(typed) == JsonPlusSerializer(allowed_msgpack_modules=None).loads_typed(typed)
    assert serde.dumps_typed(serde.loads_typed(typed)) == typed


def _shown(value: Any) -> Any:
    """What ``plain_value`` makes of MessagePack, made by ormsgpack."""
    if isinstance(value, bytes):
        return TypedValue("builtins:bytes", _base64(value))
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if isinstance(value, dict):
        return {key: _shown(each) for key, each in value.items()}
    return value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _as_typed(code: int, raw: bytes) -> TypedValue:
    module, name, payload, *_ = ormsgpack.unpackb(raw, ext_hook=_as_typed, option=ormsgpack.OPT_NON_STR_KEYS)
    return TypedValue(f"{module}:{name}", _shown(payload))


@settings(max_examples=80)
@given(_PLAIN)
def test_plain_data_is_what_another_reader_finds(value: Any) -> None:
    kind, raw = StrictSerializer().dumps_typed(value)
    if kind == "msgpack":
        found = ormsgpack.unpackb(raw, ext_hook=_as_typed, option=ormsgpack.OPT_NON_STR_KEYS)
        assert plain_value(kind, raw) == _shown(found)
    record = {"values": [{"digest": "d", "type": kind, "base64": _base64(raw)}], "note": "kept"}
    assert plain_data(record) == {
        "values": [{"digest": "d", "value": plain_value(kind, raw)}],
        "note": "kept",
    }


@given(st.integers(0, 5), st.integers(100, 2**32 - 1))
def test_missing_sizes_are_errors_immediately(cut: int, size: int) -> None:
    for mark in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF):
        raw = struct.pack(">BI", mark, size) + b"\xc0" * cut
        with pytest.raises(ValueError, match="too early"):
            plain_value("msgpack", raw)
        with pytest.raises(UnreadableValueError):
            StrictSerializer().loads_typed(("msgpack", raw))
