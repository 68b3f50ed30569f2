"""Stored values that want to run something where they are read: one of each construct that a reader could fall for.

Each one that runs makes the file ``marker``, or imports the module UNKNOWN, which makes it too.
"""

import base64
import os
import pickle
import re
import struct
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import ormsgpack
from tests.support.trap import UNKNOWN


class Hostile(NamedTuple):
    """A value as LangGraph's serializer would find it. ``lives``: that serializer really runs it."""

    name: str
    kind: str
    raw: bytes
    type_name: str | None = None  # what the error must name
    lives: bool = False


def slug(value: Any) -> str:
    """The id of a test, without spaces, and the same in every process: a repr may hold an address or a set."""
    return re.sub(r"\W+", "-", value if isinstance(value, str) else type(value).__name__)[:60]


def ext(code: int, *parts: Any) -> ormsgpack.Ext:
    """An extension of LangGraph: a type by name, and what it is to be made of."""
    return ormsgpack.Ext(code, packed(parts))


def packed(value: Any) -> bytes:
    return ormsgpack.packb(value, option=ormsgpack.OPT_NON_STR_KEYS)


def nested_extensions(levels: int, inside: bytes = b"\xc0") -> bytes:
    """Extensions in extensions, each of which is a delta snapshot of the next."""
    raw = inside
    for _ in range(levels):
        raw = b"\xc9" + struct.pack(">Ib", len(raw), 7) + raw
    return raw


def hostile_values(marker: Path) -> list[Hostile]:
    """All of them. ``marker`` is the file that code which runs would make."""
    touch = f"touch {marker}"
    program = ["touch", str(marker)]
    python = f"open({str(marker)!r}, 'w').close()"

    def made(name: str, value: Any, type_name: str | None = None, lives: bool = False) -> Hostile:
        return Hostile(name, "msgpack", packed(value), type_name, lives)

    system = ext(0, "os", "system", touch)
    lc = {"lc": 2, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": touch}}
    return [
        made("one argument: os.system", system, "os:system", lives=True),
        made("one argument: exec", ext(0, "builtins", "exec", python), "builtins:exec", lives=True),
        made("one argument: eval", ext(0, "builtins", "eval", python), "builtins:eval", lives=True),
        made("one argument: import", ext(0, UNKNOWN, "Thing", 1), f"{UNKNOWN}:Thing", lives=True),
        made("arguments: subprocess", ext(1, "subprocess", "call", [program]), "subprocess:call", lives=True),
        made("arguments: an import", ext(1, UNKNOWN, "Thing", []), f"{UNKNOWN}:Thing", lives=True),
        made(
            "keywords: a process", ext(2, "subprocess", "Popen", {"args": program}), "subprocess:Popen", True
        ),
        made("keywords: os.system", ext(2, "os", "system", {"command": touch}), "os:system", lives=True),
        made("a method", ext(3, "subprocess", "Popen", program, "__call__"), "subprocess:Popen"),
        made("a method that is imported", ext(3, UNKNOWN, "Thing", 1, "x"), f"{UNKNOWN}:Thing"),
        made("another method of datetime", ext(3, "datetime", "datetime", "x", "__class__")),
        made("a method that is missing", ext(3, "datetime", "datetime", "2026-11-30")),
        made("Pydantic 1", ext(4, "os", "system", {"command": touch}), "os:system", lives=True),
        made("Pydantic 1: an import", ext(4, UNKNOWN, "Thing", {}), f"{UNKNOWN}:Thing", lives=True),
        made("Pydantic 2", ext(5, "os", "system", {"command": touch}, "m"), "os:system", lives=True),
        made(
            "Pydantic 2: a process",
            ext(5, "subprocess", "Popen", {"args": program}),
            "subprocess:Popen",
            True,
        ),
        made("a name with a dot", ext(0, "os", "path.join", touch), "os:path.join"),
        made("an attribute of a class", ext(0, "builtins", "set.__class__", "x"), "builtins:set.__class__"),
        made("no module", ext(0, "", "system", touch), ":system"),
        made("another case", ext(0, "UUID", "uuid", touch), "UUID:uuid"),
        made("a name that is no text", ext(0, 1, 2, touch)),
        made("too few parts", ext(0, "os", "system")),
        made("no parts", ormsgpack.Ext(0, packed(None))),
        made("an unknown extension", ext(8, "os", "system", touch)),
        Hostile("an extension of the format itself", "msgpack", b"\xd6\xff\0\0\0\0"),
        made("an extension that is empty", ormsgpack.Ext(0, b"")),
        made("in a list", [1, [system]], "os:system", lives=True),
        made("in a dict", {"a": {"b": system}}, "os:system", lives=True),
        made("in a set", ext(0, "builtins", "set", [system]), "os:system", lives=True),
        made("in a delta snapshot", ormsgpack.Ext(7, packed(system)), "os:system", lives=True),
        made("in an array", ormsgpack.Ext(6, packed(["<f8", [1], "C", system])), "os:system", lives=True),
        made(
            "in a message",
            ext(5, "langchain_core.messages.human", "HumanMessage", {"content": system}),
            "os:system",
            lives=True,
        ),
        made(
            "in a command",
            ext(2, "langgraph.types", "Command", {"update": {"x": system}}),
            "os:system",
            lives=True,
        ),
        made("an array of objects", ormsgpack.Ext(6, packed(["|O", [1], "C", b"\0" * 8]))),
        made("an array of a strange type", ormsgpack.Ext(6, packed(["O,i4", [1], "C", b"\0" * 12]))),
        made("an array of a strange shape", ormsgpack.Ext(6, packed(["<f8", ["x"], "C", b"\0" * 8]))),
        made("a regular expression", ext(1, "re", "compile", ["[\0-\uffff]" * 3, 2]), "re:Pattern"),
        made("a time zone elsewhere", ext(0, "zoneinfo", "ZoneInfo", "../../../etc/passwd")),
        made("a time zone in a package", ext(0, "zoneinfo", "ZoneInfo", "antigravity/x")),
        made("a time zone that is no text", ext(0, "zoneinfo", "ZoneInfo", ["Europe/Oslo"])),
        made("a set of what it can't hold", ext(0, "builtins", "set", [[1]])),
        made("a message that is none", ext(5, "langchain_core.messages.human", "HumanMessage", "x")),
        Hostile("nested too deeply", "msgpack", nested_extensions(101)),
        Hostile("nested too deeply and large", "msgpack", nested_extensions(60, packed(b"x" * 2**20))),
        Hostile("cut off", "msgpack", packed(system)[:-3]),
        Hostile("a list of four billion", "msgpack", b"\xdd\xff\xff\xff\xff\xc0"),
        Hostile("a dict of four billion", "msgpack", b"\xdf\xff\xff\xff\xff\xc0\xc0"),
        Hostile("lists in lists", "msgpack", b"\x91" * 5_000 + b"\xc0"),
        Hostile("nothing", "msgpack", b""),
        Hostile("JSON: a constructor", "json", orjson.dumps(lc), "os.system"),
        Hostile("JSON: a constructor within", "json", orjson.dumps({"a": [lc]}), "os.system"),
        Hostile("JSON: version 1", "json", orjson.dumps({**lc, "lc": 1}), "os.system"),
        Hostile(
            "JSON: a method",
            "json",
            orjson.dumps({**lc, "id": ["pathlib", "Path"], "method": ["touch"], "args": [str(marker)]}),
            "pathlib.Path",
        ),
        Hostile("JSON: a secret", "json", orjson.dumps({"lc": 1, "type": "secret", "id": ["HOME"]}), "HOME"),
        Hostile("JSON: nested too deeply", "json", b"[" * 100_000),
        Hostile("JSON: cut off", "json", b'{"a":'),
        Hostile("JSON: another encoding", "json", orjson.dumps(lc).decode().encode("utf-16-be")),
        Hostile("a pickle", "pickle", hostile_pickles(marker)["os.system"]),
        Hostile("another format", "yaml", f"!!python/object/apply:os.system ['{touch}']".encode()),
        Hostile("an encrypted value", "msgpack+aes", packed(system)),
    ]


class Called:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def operations(*parts: bytes) -> bytes:
    """A pickle from its operations."""
    return b"\x80\x04" + b"".join(parts) + b"."


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + pickle.STACK_GLOBAL


def text(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def twice(times: int, empty: bytes = b"", fill: bytes = pickle.TUPLE2, between: bytes = b"") -> bytes:
    """Operations that put what is on the stack into a pair twice, then that pair, and so on."""
    steps = []
    for index in range(times):
        recall = pickle.BINGET + bytes([index])
        if empty:
            steps.append(
                pickle.MEMOIZE
                + pickle.POP
                + empty[:1]
                + pickle.MARK
                + empty[1:]
                + recall
                + between
                + recall
                + fill
            )
        else:
            steps.append(pickle.MEMOIZE + recall + fill)
    return b"".join(steps)


def hostile_pickles(marker: Path) -> dict[str, bytes]:
    """Pickles that want to run or change something, by name."""
    touch = f"touch {marker}"
    arguments = text(touch) + pickle.TUPLE1
    shared = text("x") + twice(60)
    storage = named("agent_framework._workflows._checkpoint", "FileCheckpointStorage")
    kind = named("agent_framework._workflows._runner_context", "MessageType")
    message = named("agent_framework._types", "Message")
    return {
        "os.system": pickle.dumps(Called(os.system, touch)),
        "os.system, protocol 0": pickle.dumps(Called(os.system, touch), 0),
        "a process": pickle.dumps(Called(subprocess.Popen, ["touch", str(marker)])),
        "exec": pickle.dumps(Called(exec, f"open({str(marker)!r}, 'w').close()")),
        "an import": operations(named(UNKNOWN, "Thing"), pickle.EMPTY_TUPLE, pickle.REDUCE),
        "an import without a call": operations(named(UNKNOWN, "Thing")),
        "an import of the framework": operations(named("agent_framework.lab", "Thing")),
        "an attribute of an allowed module": operations(
            named("agent_framework._workflows._checkpoint", "os.system"), arguments, pickle.REDUCE
        ),
        "getattr": operations(
            named("builtins", "getattr"), named("os", "path") + text("join") + pickle.TUPLE2, pickle.REDUCE
        ),
        "getattr of a class": operations(
            named("builtins", "getattr"), message, text("__init__"), pickle.TUPLE2, pickle.REDUCE
        ),
        "the framework's file storage": operations(storage, text(str(marker)) + pickle.TUPLE1, pickle.REDUCE),
        "the framework's file storage, without a constructor": operations(
            storage, pickle.EMPTY_TUPLE, pickle.NEWOBJ
        ),
        "the framework's own unpickler": operations(
            named("agent_framework._workflows._checkpoint_encoding", "_base64_to_unpickle"),
            text(base64.b64encode(pickle.dumps(Called(os.system, touch))).decode()) + pickle.TUPLE1,
            pickle.REDUCE,
        ),
        "a new class": operations(
            named("builtins", "type"),
            text("X") + message + pickle.TUPLE1 + pickle.EMPTY_DICT + pickle.TUPLE3,
            pickle.REDUCE,
        ),
        "a call of a message": operations(message, pickle.EMPTY_TUPLE, pickle.REDUCE),
        "changing a class": operations(
            message,
            pickle.NONE + pickle.EMPTY_DICT + text("to_dict") + text("x") + pickle.SETITEM + pickle.TUPLE2,
            pickle.BUILD,
        ),
        "changing the class of an object": operations(
            message,
            pickle.EMPTY_TUPLE + pickle.NEWOBJ,
            pickle.EMPTY_DICT + text("__class__") + named("builtins", "dict") + pickle.SETITEM,
            pickle.BUILD,
        ),
        "changing a method of an object": operations(
            message,
            pickle.EMPTY_TUPLE + pickle.NEWOBJ,
            pickle.EMPTY_DICT + text("to_dict") + named("builtins", "dict") + pickle.SETITEM,
            pickle.BUILD,
        ),
        "changing a member of an enum": operations(
            kind,
            text("standard") + pickle.TUPLE1 + pickle.REDUCE,
            pickle.EMPTY_DICT + text("_value_") + text("response") + pickle.SETITEM,
            pickle.BUILD,
        ),
        "a billion bytes": operations(
            named("builtins", "bytearray"), b"J\xff\xff\xff\x7f" + pickle.TUPLE1, pickle.REDUCE
        ),
        "a key that takes years": operations(pickle.EMPTY_DICT, shared, pickle.NONE, pickle.SETITEM),
        "an item of a set that takes years": operations(
            pickle.EMPTY_SET, pickle.MARK, shared, pickle.ADDITEMS
        ),
        "a frozen set that takes years": operations(pickle.MARK, shared, pickle.FROZENSET),
        "a counter that takes years": operations(
            named("collections", "Counter"), shared + pickle.TUPLE1 + pickle.TUPLE1, pickle.REDUCE
        ),
        "a member of an enum that takes years": operations(kind, shared + pickle.TUPLE1, pickle.REDUCE),
        "a new member of an enum that takes years": operations(kind, shared + pickle.TUPLE1, pickle.NEWOBJ),
        "the name of a member that takes years": operations(
            named("builtins", "getattr"), kind, shared + pickle.TUPLE2, pickle.REDUCE
        ),
        "a UUID that takes years": operations(
            named("uuid", "UUID"),
            pickle.EMPTY_TUPLE + pickle.NEWOBJ,
            pickle.EMPTY_DICT
            + text("int")
            + b"K\x01"
            + pickle.SETITEM
            + text("is_safe")
            + shared
            + pickle.SETITEM,
            pickle.BUILD,
        ),
        "a tuple that takes years": operations(shared),
        "a list that takes years": operations(
            pickle.EMPTY_LIST + twice(60, pickle.EMPTY_LIST, pickle.APPENDS)
        ),
        "a dict that takes years": operations(
            pickle.EMPTY_DICT, twice(60, pickle.EMPTY_DICT + text("x"), pickle.SETITEMS, text("y"))
        ),
        "a message that takes years": operations(
            message,
            pickle.EMPTY_TUPLE + pickle.NEWOBJ + pickle.EMPTY_DICT + text("contents"),
            pickle.EMPTY_LIST + twice(60, pickle.EMPTY_LIST, pickle.APPENDS),
            pickle.SETITEM + pickle.BUILD,
        ),
        "a key of 30,000 parts": operations(
            pickle.EMPTY_DICT, text("x") + twice(15), pickle.NONE, pickle.SETITEM
        ),
        "a UUID that is none": operations(
            named("uuid", "UUID"),
            pickle.EMPTY_TUPLE + pickle.NEWOBJ,
            pickle.EMPTY_DICT + text("int") + text("x") + pickle.SETITEM,
            pickle.BUILD,
        ),
        "a persistent id": operations(text("x") + pickle.BINPERSID),
        "an extension code": operations(pickle.EXT1 + b"\x01"),
        "an instance of protocol 0": b"(ios\nsystem\n.",
        "an object of protocol 1": operations(pickle.MARK, named("collections", "deque"), pickle.OBJ),
        "a buffer from elsewhere": b"\x80\x05\x97.",
        "cut off": pickle.dumps(Called(os.system, touch))[:-5],
        "no value": b"\x80\x04.",
        "two values": operations(text("x"), text("y")),
        "a mark alone": operations(pickle.MARK),
        "nothing": b"",
        "no pickle": b"\xff\xff\xff",
    }
