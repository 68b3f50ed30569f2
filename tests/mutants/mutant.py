"""What a mutant is, and how it is put into the running code: a few words of a function or statement are replaced."""

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from waypost.statements import for_schema
from waypost_worker.postgres import statements


@dataclass(frozen=True, slots=True)
class Edit:
    """In the function at ``where`` (module:qualified.name), or in the statement sql:name, ``old`` becomes ``new``.

    ``old`` stands there exactly once.
    """

    where: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A deliberate bug. The simulation must catch it, or, where ``tests`` names some, one of these tests.

    ``harmless`` is the argument why nothing can go wrong, where that is so: then nothing may catch it.
    """

    name: str
    bug: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...] = ()
    harmless: str | None = None


class StaleEditError(Exception):
    """The code no longer has the words that a mutant replaces: bring the catalogue up to date."""


def apply(mutant: Mutant) -> None:
    """Put the bug into this process, for good."""
    for where, source in mutated_sources(mutant).items():
        if where.startswith("sql:"):
            _exchange(statements.statement, _statement_with(where.removeprefix("sql:"), source))
            continue
        holder, name, original = _find(where)
        made: dict[str, Any] = {}
        exec(compile(source, f"<mutant of {where}>", "exec"), vars(_module(where)), made)
        setattr(holder, name, made[name])
        _exchange(original, made[name])


def mutated_sources(mutant: Mutant) -> dict[str, str]:
    """The source of each function or statement with the bug; StaleEditError if an edit does not fit."""
    sources: dict[str, str] = {}
    for edit in mutant.edits:
        source = sources.get(edit.where)
        if source is None:
            source = _source(edit.where)
        if (times := source.count(edit.old)) != 1:
            raise StaleEditError(
                f"{mutant.name}: {edit.where} has these words {times} times instead of once: {edit.old!r}"
            )
        sources[edit.where] = source.replace(edit.old, edit.new)
    return sources


def _source(where: str) -> str:
    if where.startswith("sql:"):
        return statements.statement(where.removeprefix("sql:"))
    function = _find(where)[2]
    if isinstance(function, property):
        function = function.fget
    return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))


def _statement_with(changed: str, text: str) -> Callable[..., str]:
    original = statements.statement

    @cache
    def statement(name: str, schema: str = statements.DEFAULT_SCHEMA) -> str:
        return for_schema(text, schema) if name == changed else original(name, schema)

    return statement


def _exchange(original: object, changed: object) -> None:
    """Give it to every module that imported the original by name."""
    for module in [one for one in sys.modules.values() if isinstance(one, ModuleType)]:
        for name, value in list(vars(module).items()):
            if value is original:
                setattr(module, name, changed)


def _module(where: str) -> ModuleType:
    return import_module(where.partition(":")[0])


def _find(where: str) -> tuple[Any, str, Any]:
    """The module or class that holds the function, the function's name in it, and what is there."""
    holder: Any = _module(where)
    *outer, name = where.partition(":")[2].split(".")
    for part in outer:
        holder = getattr(holder, part)
    if isinstance(holder, type):  # the class itself or the base that has it
        holder = next((one for one in holder.__mro__ if name in vars(one)), holder)
    if name not in vars(holder):
        raise StaleEditError(f"there is no {where} any more: bring the catalogue up to date")
    return holder, name, vars(holder)[name]
