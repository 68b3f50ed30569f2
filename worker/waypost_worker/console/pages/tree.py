"""A JSON value as a tree to look at: bounded in depth and size, whatever an agent sent. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

#: The size of one page. The rest is one link away.
MOST_NODES: Final = 1500
DEEPEST: Final = 12
LONGEST_TEXT: Final = 600
LONGEST_PATH: Final = 2000
_LONGEST_KEY: Final = 200
_OPEN_LEVELS: Final = 2
_OPEN_ITEMS: Final = 30


@dataclass(slots=True)
class Node:
    """Value at ``path``, a JSON Pointer. ``text`` is that of a scalar, ``kind`` of an object or a list its size.

    ``more`` says what of it is not shown here. It can be looked at by itself, unless ``path`` is None: too long for an
    address, since a key may have 900 KB.
    """

    key: str
    path: str | None
    kind: str = ""
    text: str = ""
    more: str = ""
    opened: bool = False
    children: "list[Node]" = field(default_factory=list)


class UnknownPathError(Exception):
    """The value has nothing at this path."""


def tree(value: Any, path: str = "", key: str = "") -> Node:
    """Return a value, of which ``path`` is the place in the whole, as a tree."""
    budget = _Budget()
    return _node(value, path, key, 0, budget)


def at(value: Any, path: str) -> Any:
    """Return what a value holds at a JSON Pointer. Raise UnknownPathError if it holds nothing there."""
    for step in _steps(path):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and step.isascii() and len(step) < 10:
            if int(step) >= len(value):
                raise UnknownPathError(path)
            value = value[int(step)]
        else:
            raise UnknownPathError(path)
    return value


def _steps(path: str) -> Iterator[str]:
    if path and not path.startswith("/"):
        raise UnknownPathError(path)
    for step in path.split("/")[1:]:
        yield step.replace("~1", "/").replace("~0", "~")


class _Budget:
    def __init__(self) -> None:
        self.left = MOST_NODES


def _node(value: Any, path: str | None, key: str, depth: int, budget: _Budget) -> Node:
    budget.left -= 1
    key = key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…"
    if not isinstance(value, dict | list):
        text = orjson.dumps(value).decode()
        if len(text) > LONGEST_TEXT:
            return Node(key, path, text=f"{text[:LONGEST_TEXT]}…", more=f"{len(value):,} characters")
        return Node(key, path, text=text)
    count = len(value)
    kind = f"{{{count}}}" if isinstance(value, dict) else f"[{count}]"
    node = Node(key, path, kind, opened=depth < _OPEN_LEVELS and count <= _OPEN_ITEMS)
    if depth >= DEEPEST and count:
        node.more = "deeper"
        return node
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for shown, (step, item) in enumerate(pairs):
        if budget.left <= 0:
            node.more = f"{count - shown:,} more"
            break
        node.children.append(_node(item, _below(path, str(step)), str(step), depth + 1, budget))
    return node


def _below(path: str | None, step: str) -> str | None:
    if path is None or len(path) + len(step) > LONGEST_PATH:
        return None
    return f"{path}/{step.replace('~', '~0').replace('/', '~1')}"
