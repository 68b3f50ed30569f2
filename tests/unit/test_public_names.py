"""The public surface of the library: these names and no others, for people, at run time and for type checkers."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import waypost

ROOT = Path(__file__).parents[2]
#: A change here is one of what users may rely on. It needs a line in the changelog, and an old name stays for as long
#: as docs/versioning.md says.
NAMES = [
    "AccessDeniedError",
    "BufferFullError",
    "Checkpoint",
    "CheckpointDict",
    "CheckpointManager",
    "CheckpointPage",
    "Codec",
    "CommandPosition",
    "CommandResult",
    "DatabaseUnavailableError",
    "DeadLetterError",
    "Deduplicator",
    "DeliveryError",
    "DirectoryKeyStore",
    "EncryptionError",
    "EnvironmentWrapper",
    "Event",
    "FileWrapper",
    "InvalidArgumentError",
    "InvalidCommandError",
    "KafkaUnavailableError",
    "KeyErasedError",
    "KeyNotLoadedError",
    "KeyStore",
    "KeyStoreError",
    "KeyWrapper",
    "KeyWrappingError",
    "MissingKeyError",
    "MovedDataError",
    "NaiveDatetimeError",
    "PlaintextError",
    "PostgresKeyStore",
    "Publisher",
    "PublisherClosedError",
    "PublisherOptions",
    "PublisherStats",
    "Reader",
    "ReaderClosedError",
    "ReaderError",
    "ReaderTimeoutError",
    "ResultTimeoutError",
    "RetentionPolicy",
    "SessionInfo",
    "SessionPage",
    "SessionReader",
    "SettingsError",
    "ShardMapError",
    "SpoolError",
    "StoredKey",
    "Subscriber",
    "SubscriberError",
    "Summary",
    "SyncPublisher",
    "TokenFile",
    "Topics",
    "UnauthenticDataError",
    "UnknownCheckpointError",
    "WaypostError",
    "WrappedKey",
    "continued_trace",
    "json_default",
    "tenant_of",
]
ADAPTERS = {
    "waypost.adapters": [
        "POLICY",
        "Backend",
        "MissingValueError",
        "RejectedWriteError",
        "SessionFullError",
        "TypeNotAllowedError",
        "UnreadableValueError",
    ],
    "waypost.adapters.agent_framework": ["WaypostCheckpointStorage"],
    "waypost.adapters.claude_agent_sdk": ["WaypostSessionStore"],
    "waypost.adapters.google_adk": ["WaypostSessionService"],
    "waypost.adapters.langgraph": ["StrictSerializer", "ThreadEvent", "WaypostSaver", "decode"],
    "waypost.adapters.openai_agents": ["WaypostSession"],
    "waypost.adapters.plain": ["MAX_VALUES", "TypedValue", "plain_data", "plain_value"],
}
RENAMED = {"Page": "CheckpointPage", "Policy": "RetentionPolicy", "WaitedResult": "CommandResult"}
MOVED = {
    "waypost.publisher_options": "PublisherOptions",
    "waypost.spans": "continued_trace",
    "waypost.token_file": "TokenFile",
}


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_public_names_are_these() -> None:
    assert waypost.__all__ == NAMES


@pytest.mark.parametrize("module", ADAPTERS)
def test_the_public_names_of_the_adapters_are_these(module: str) -> None:
    found = importlib.import_module(module)
    assert found.__all__ == ADAPTERS[module]
    assert all(hasattr(found, name) for name in found.__all__)


def test_dir_shows_the_public_names_whatever_was_loaded() -> None:
    listed = run("import waypost; waypost.Reader; waypost.spans; print(*dir(waypost))").stdout.split()
    assert [name for name in listed if not name.startswith("__")] == sorted(NAMES)
    assert {"__all__", "__doc__", "__version__"} <= set(listed)


def test_a_star_import_brings_the_public_names() -> None:
    done = run(
        "from waypost import *; print(*(name for name in dir() if not name.startswith('__')))", "-Werror"
    )
    assert done.stdout.split() == sorted(NAMES)


def test_type_checkers_are_shown_the_same_names() -> None:
    tree = ast.parse(Path(waypost.__file__).read_text(encoding="utf-8"))
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imported = {
        name.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert sorted(imported) == sorted(NAMES)
    # At run time each comes from the module that type checkers were told.
    for name, module in imported.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(waypost, name)


def test_a_type_checker_takes_the_public_names_and_no_others(tmp_path: Path) -> None:
    uses = "; ".join(f"waypost.{name}" for name in NAMES)
    program = tmp_path / "program.py"
    program.write_text(f"import waypost; {uses}\nwaypost.Policy\nwaypost.wrong\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(program)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert [line.partition(": error: ")[2] for line in done.stdout.splitlines()[:-1]] == [
        'Module has no attribute "Policy"  [attr-defined]',
        'Module has no attribute "wrong"  [attr-defined]',
    ], done.stdout + done.stderr


@pytest.mark.parametrize(("old", "new"), RENAMED.items(), ids=RENAMED)
def test_an_old_class_name_is_the_new_class(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"^waypost\.{old} is deprecated, .* Use waypost\.{new}\.$"):
        assert getattr(waypost, old) is getattr(waypost, new)


@pytest.mark.parametrize(("module", "name"), MOVED.items(), ids=MOVED)
def test_an_old_module_still_has_its_name(module: str, name: str) -> None:
    with pytest.warns(
        DeprecationWarning, match=rf"^{module}\.{name} is deprecated, .* Use waypost\.{name}\.$"
    ):
        assert getattr(importlib.import_module(module), name) is getattr(waypost, name)
    # Documented as an attribute of the package, without an import of its own.
    found = run(f"import waypost; print({module}.{name})", "-Wignore")
    assert name in found.stdout, found.stderr


# Docstrings.

#: With these begins what only explains a name to those who know it.
NO_NOUN = re.compile(
    "All|Any|As|At|For|How|If|It|Not|See|So|Some|That|These|This|Those|What|When|Where|Whether|Which|Who|With|Without"
)
ARTICLES = {"A", "An", "The"}


def documented() -> Iterator[tuple[str, Any]]:
    """Every public class and function, and what is public in a class, by its name."""
    for module, names in {"waypost": NAMES, **ADAPTERS}.items():
        for name in names:
            found = getattr(importlib.import_module(module), name)
            if not callable(found):
                continue  # a constant has a comment
            yield name, found
            if inspect.isclass(found):
                own = [base for base in found.__mro__ if base.__module__.startswith("waypost")]
                for member in sorted({key for base in own for key in vars(base) if not key.startswith("_")}):
                    value = inspect.getattr_static(found, member)
                    if hasattr(value, "__override__"):
                        continue  # the framework says what it is for
                    if inspect.isfunction(value) or hasattr(value, "fget") or isinstance(value, classmethod):
                        yield f"{name}.{member}", value


DOCUMENTED = dict(documented())


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_docstring_begins_with_a_verb_or_a_noun(name: str) -> None:
    what = DOCUMENTED[name]
    text = inspect.getdoc(what)
    assert text, f"{name} has no docstring"
    first = text.split()[0].strip(",.")
    assert first.isalpha(), text
    assert first[0].isupper(), text
    assert not NO_NOUN.fullmatch(first), text
    if inspect.isfunction(what) and not inspect.isgeneratorfunction(inspect.unwrap(what)):
        assert first not in ARTICLES, f"a method's docstring begins with a verb: {text}"
        assert not first.endswith("s"), f"a method's docstring begins with an imperative: {text}"
    summary = text.partition("\n\n")[0]
    assert summary.endswith((".", "…``")), f"the first paragraph is no sentence: {summary}"


def test_there_are_docstrings_to_look_at() -> None:
    assert len(DOCUMENTED) > 150
    assert {
        "Publisher.create",
        "SyncPublisher.create",
        "Event.token",
        "Checkpoint.from_dict",
        "continued_trace",
    } < set(DOCUMENTED)


def test_rollback_to_says_first_that_nothing_changes() -> None:
    for kind in (waypost.CheckpointManager, waypost.SessionReader):
        assert str(kind.rollback_to.__doc__).startswith("Change nothing")
