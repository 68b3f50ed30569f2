"""What docstrings, comments and pages refer to by a dotted name exists: a module, a class or one of its members."""

import ast
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import waypost
from waypost import Topics
from waypost.wire.event_types import EventType

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "worker" / "waypost_worker" / "postgres" / "migrations"
PRODUCT = [file for package in ("schemas", "worker") for file in sorted((ROOT / package).rglob("*.py"))]
SOURCES = [*PRODUCT, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "deploy").rglob("*.py"))]
# The changelog also names what is gone.
PAGES = [
    page
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name != "CHANGELOG.md"
]
DOTTED = re.compile(r"(?<![\w./:@-])waypost(?:_worker)?(?:\.[A-Za-z_]\w*)+")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`([\w.]+)`")
# Names that begin like a module and are none.
OTHERS = {
    "waypost.toml": "the settings file",
    "waypost.json": "the dashboard's file",
    "waypost.rules": "files of alert rules",
    "waypost.b": "a topic prefix, in an example",
    "waypost.encrypted": "the member of encrypted data",
}


class Reference(NamedTuple):
    """A dotted name, and where it stands: in which file, on which line, within which class."""

    name: str
    file: Path
    line: int
    owner: str = ""

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.name}"


def in_source(file: Path) -> Iterator[Reference]:
    text = file.read_text(encoding="utf-8")
    for node, owner in documented(ast.parse(text)):
        docstring = ast.get_docstring(node, clean=False) or ""
        for name in {*DOTTED.findall(docstring), *ROLE.findall(docstring)}:
            yield Reference(name, file, node.body[0].lineno, owner)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from (Reference(name, file, token.start[0]) for name in DOTTED.findall(token.string))


def documented(tree: ast.Module) -> Iterator[tuple[Documented, str]]:
    """What may have a docstring, with the class that it is or belongs to."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]  # inner ones last
    owners = {within: node.name for node in classes for within in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, Documented):
            yield node, owners.get(node, "")


def in_page(page: Path) -> Iterator[Reference]:
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        yield from (Reference(name, page, number) for name in DOTTED.findall(line))


@cache
def not_python() -> frozenset[str]:
    """Event types, topics and tables: what else has a name that begins with the product's."""
    topics = Topics()
    tables = [
        name
        for migration in MIGRATIONS.glob("*.sql")
        for name in re.findall(r"\b(waypost\.\w+)", migration.read_text(encoding="utf-8"))
    ]
    return frozenset([*EventType, topics.commands, topics.results, *tables, *OTHERS])


@cache
def resolved(name: str) -> bool:
    """Whether this is a module, or can be reached from one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if is_module(module):
            return length == len(parts) or has(importlib.import_module(module), parts[length:])
    return False


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # what stands before the last dot is no package
        return False


def has(holder: Any, path: list[str]) -> bool:
    """Whether attributes lead from here to there. Those that only instances have are known by their annotation."""
    for part in path:
        bases = getattr(holder, "__mro__", ())
        if not hasattr(holder, part):
            return any(part in vars(base).get("__annotations__", ()) for base in bases)
        holder = getattr(holder, part)
    return True


def module_of(file: Path) -> str:
    """The name under which a file of the product is imported."""
    parts = list(file.relative_to(ROOT).with_suffix("").parts[1:])
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def named_here(reference: Reference) -> bool:
    """Whether a short name is one of the docstring's class, one that its module knows, or a public one."""
    module = importlib.import_module(module_of(reference.file))
    path = reference.name.split(".")
    return any(has(holder, path) for holder in (module, getattr(module, reference.owner, None), waypost))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("waypost.wire.envelope", True),
        ("waypost.Publisher.create", True),
        ("waypost_worker.partition.tail.digest", True),
        ("waypost_worker.cli.__main__", True),
        ("waypost.publisher.options.PublisherSettings.spool", True),
        ("waypost.envelope", False),
        ("waypost.wire.envelope.close_envelope", False),
        ("waypost.Publisher.creates", False),
    ],
)
def test_a_name_that_does_not_exist_is_distinguished_from_one_that_does(name: str, found: bool) -> None:
    assert resolved(name) is found


def test_docstrings_and_comments_refer_to_what_exists() -> None:
    dotted = [one for file in SOURCES for one in in_source(file) if one.name.startswith("waypost")]
    assert len(dotted) > 50
    assert [str(one) for one in dotted if one.name not in not_python() and not resolved(one.name)] == []


def test_roles_in_docstrings_name_what_their_module_knows() -> None:
    short = [one for file in PRODUCT for one in in_source(file) if not one.name.startswith("waypost")]
    assert len(short) > 20
    assert [str(one) for one in short if not named_here(one)] == []


def test_pages_refer_to_what_exists() -> None:
    dotted = [one for page in PAGES for one in in_page(page)]
    assert len(dotted) > 20
    assert [str(one) for one in dotted if one.name not in not_python() and not resolved(one.name)] == []
