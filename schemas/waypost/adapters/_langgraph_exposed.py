"""Metadata of a thread's records for subscribers: the nodes that ran, and the exposed state. Pure."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from waypost.adapters.records import storable
from waypost.errors import InvalidArgumentError, InvalidCommandError, quoted
from waypost.model.limits import dump_object
from waypost.wire.encode import metadata_json
from waypost.wire.json_default import json_default

_PULLED: Final = "~__pregel_pull, "
_SENT: Final = re.compile(r"~__pregel_push, (\d+)")
_SENDS: Final = "__pregel_tasks"  # the channel that holds what Send starts
_STEPS: Final = 2_000  # whose nodes are remembered
_NODES: Final = 20
_NODE: Final = 100  # characters
_STATE_BYTES: Final = 4_000
_PATH: Final = re.compile(r"""([^.\[\]]+)((?:\.[^.\[\]]+|\[-?\d+\]|\["[^"]*"\]|\['[^']*'\])*)""")
_PART: Final = re.compile(r"""\.([^.\[\]]+)|\[(-?\d+)\]|\["([^"]*)"\]|\['([^']*)'\]""")
_Step = tuple[str, str, str]  # session, namespace, id of the checkpoint that the step starts from


class NodesOfSteps:
    """The nodes that ran from a checkpoint on, as the names of tasks tell.

    A task that Send started has no name but a place among what is sent, which the checkpoint lists that the step
    starts from. LangGraph may store that checkpoint after what such a task wrote, but before the next checkpoint.
    """

    def __init__(self) -> None:
        self._sends: OrderedDict[_Step, list[str]] = OrderedDict()
        self._ran: OrderedDict[_Step, dict[str | int, None]] = OrderedDict()

    def starts(self, step: _Step, values: Mapping[str, Any]) -> None:
        """Note the values of the checkpoint that a step starts from."""
        sends = values.get(_SENDS)
        if isinstance(sends, list | tuple) and sends:
            self._sends[step] = [str(getattr(each, "node", "")) for each in sends]
            _shorten(self._sends)

    def wrote(self, step: _Step, task_path: str) -> dict[str, str | int]:
        """Note that a task of a step wrote something, and return metadata that tell its node."""
        task: str | int = ""
        if task_path.startswith(_PULLED):
            task = task_path.removeprefix(_PULLED)
        elif (sent := _SENT.match(task_path)) is not None:
            task = int(sent[1])
        self.ran(step, task)
        named = self._named(step, task)
        return {"node": named} if named else {"sent": task} if isinstance(task, int) else {}

    def ran(self, step: _Step, task: object) -> None:
        """Note that a task ran in a step: the name of its node, or its place among what is sent."""
        if isinstance(task, str) or type(task) is int:
            self._ran.setdefault(step, {})[task] = None
            _shorten(self._ran)

    def of(self, step: _Step) -> list[str]:
        """Return the nodes that are known to have run in a step, at most 20 of them."""
        named = (self._named(step, task) for task in self._ran.get(step, ()))
        return list(dict.fromkeys(node for node in named if node))[:_NODES]

    def _named(self, step: _Step, task: str | int) -> str:
        if isinstance(task, int):
            sends = self._sends.get(step, [])
            task = sends[task] if 0 <= task < len(sends) else ""
        return task if len(task) <= _NODE and storable(task) else ""


def _shorten(known: OrderedDict[_Step, Any]) -> None:
    while len(known) > _STEPS:
        known.popitem(last=False)


class ExposedState:
    """Paths into a thread's state whose values everybody may see, such as ``messages[-1].content``."""

    def __init__(self, paths: Iterable[str]) -> None:
        if isinstance(paths, str):
            raise InvalidArgumentError(f"expose takes a list of paths, not the text {quoted(paths)}")
        self._paths = {path: _parsed(path) for path in paths}

    def of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return metadata with the values of these paths as plain JSON.

        A path that leads nowhere is left out. So is a value that JSON can't carry, or that does not fit into 4,000
        bytes with those before it; its path is then listed under ``unexposed``.
        """
        state: dict[str, Any] = {}
        left_out = []
        for path, (channel, parts) in self._paths.items():
            if channel not in values:
                continue
            try:
                plain = orjson.loads(dump_object({path: _at(values[channel], parts)}, "state", json_default))
                if len(metadata_json(state | plain)) <= _STATE_BYTES:
                    state |= plain
                    continue
            except LookupError:
                continue
            except InvalidCommandError:
                pass
            left_out.append(path)
        return ({"state": state} if state else {}) | ({"unexposed": left_out} if left_out else {})


def _parsed(path: str) -> tuple[str, list[str | int]]:
    if not isinstance(path, str) or len(path) > _NODE or not storable(path):
        raise InvalidArgumentError(
            f"a path to expose is a text of at most {_NODE} characters, not {quoted(path)}"
        )
    if (found := _PATH.fullmatch(path)) is None:
        raise InvalidArgumentError(
            f"{quoted(path)} is not a path to expose: name a channel, then members and places in it, as in "
            "'messages[-1].content'"
        )
    parts: list[str | int] = [
        int(place) if place else name or one or other for name, place, one, other in _PART.findall(found[2])
    ]
    return found[1], parts


def _at(value: Any, parts: Iterable[str | int]) -> Any:
    """The value at a path. LookupError if it leads nowhere."""
    for part in parts:
        try:
            if isinstance(part, int) or isinstance(value, Mapping):
                value = value[part]
            elif part.startswith("_"):
                raise LookupError(part)
            else:
                value = getattr(value, part)
        except (AttributeError, TypeError) as error:
            raise LookupError(part) from error
    return value
