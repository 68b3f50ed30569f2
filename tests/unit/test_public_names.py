"""The public surface of the library: these names and no others, for people, at run time and for type checkers."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

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
    "CommandPosition",
    "CommandResult",
    "DatabaseUnavailableError",
    "DeadLetterError",
    "Deduplicator",
    "DeliveryError",
    "Event",
    "InvalidCommandError",
    "KafkaUnavailableError",
    "NaiveDatetimeError",
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
    "ShardMapError",
    "SpoolError",
    "Subscriber",
    "SubscriberError",
    "Summary",
    "SyncPublisher",
    "TokenFile",
    "Topics",
    "UnknownCheckpointError",
    "WaypostError",
    "continued_trace",
]
ADAPTERS = {
    "waypost.adapters": ["POLICY", "Backend", "SessionFullError"],
    "waypost.adapters.agent_framework": ["WaypostCheckpointStorage"],
    "waypost.adapters.langgraph": ["WaypostSaver"],
    "waypost.adapters.openai_agents": ["WaypostSession"],
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
