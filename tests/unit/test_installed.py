"""``make test-pythons`` and ``make test-extras``: which there are to test, and that a failure is told."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.unit.deploy_scripts import script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed() -> ModuleType:
    return script("installed")


def test_every_supported_python_is_in_the_workflow_and_no_other(installed: ModuleType) -> None:
    versions = ", ".join(f'"{version}"' for version in installed.supported())
    assert f"python: [{versions}]" in (ROOT / ".github/workflows/ci.yml").read_text()
    assert installed.supported()[0] == "3.11"


def test_every_extra_has_something_to_import(installed: ModuleType) -> None:
    assert set(installed.MODULES) == {"", *installed.extras()}


def test_every_example_is_tried_with_what_it_says_it_needs(installed: ModuleType) -> None:
    tried = {name: extra for extra in installed.MODULES for name, _ in installed.programs(extra)}
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    # The one needs no part of Waypost, the other several extras and boto3.
    assert set(tried) - {"its modules"} == examples - {"confluent_producer.py", "kms_encryption.py"}
    assert tried["langgraph_thread.py"] == "langgraph"
    assert tried["billing_subscriber.py"] == ""


def test_an_example_that_does_not_say_what_it_needs_is_an_error(installed: ModuleType) -> None:
    with pytest.raises(ValueError, match="says what it needs"):
        installed.needed('"""An example."""')


def test_only_the_imports_of_a_program_are_run(installed: ModuleType) -> None:
    source = '"""Doc."""\nimport os\nfrom sys import (\n    path,\n)\nraise SystemExit(7)\n'
    assert installed.imports(source) == "import os\nfrom sys import path"


class Tools:
    """Stands in for what is run: answers by what a command has in it."""

    def __init__(self, answers: dict[str, tuple[int, str]]) -> None:
        self.answers = answers
        self.commands: list[str] = []

    def __call__(self, *command: str | Path, **_: object) -> subprocess.CompletedProcess[str]:
        line = " ".join(map(str, command))
        self.commands.append(line)
        code, said = next((answer for word, answer in self.answers.items() if word in line), (0, ""))
        return subprocess.CompletedProcess(list(map(str, command)), code, said if code == 0 else "", said)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return tmp_path / "waypost-0.1.0-py3-none-any.whl"


def arguments(what: str, wheel: Path, *names: str) -> list[str]:
    return [what, *names, "--wheel", str(wheel), "--into", str(wheel.parent / "into")]


def test_a_missing_python_is_reported(
    installed: ModuleType, wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        installed,
        "_run",
        Tools({"python find": (2, "no interpreter"), "-m pytest": (0, "== 7 passed in 1s ==")}),
    )
    monkeypatch.setenv("PYENV_ROOT", str(wheel.parent))
    assert installed.main(arguments("pythons", wheel)) == 2
    assert "Python 3.14 is not here, so it was not tested" in capsys.readouterr().out
    python = wheel.parent / "versions/3.12.9/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    # One is enough for a run without names; a version that was asked for must be there.
    assert installed.main(arguments("pythons", wheel)) == 0
    assert installed.main(arguments("pythons", wheel, "3.12", "3.14")) == 2
    assert "Python 3.12" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ({"-m pytest": (0, "== 7 passed in 1s ==")}, 0, "ok"),
        ({"-m pytest": (1, "")}, 1, "FAILED"),
        ({"require-hashes": (1, "no wheel for this")}, 1, "no wheel for this"),
        ({"uv venv": (2, "broken Python")}, 1, "broken Python"),
    ],
)
def test_what_fails_on_a_python_fails_the_run(
    installed: ModuleType,
    wheel: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: dict[str, tuple[int, str]],
    code: int,
    said: str,
) -> None:
    tools = Tools({"python find": (0, sys.executable), **answers})
    monkeypatch.setattr(installed, "_run", tools)
    assert installed.main(arguments("pythons", wheel, "3.11")) == code
    assert said in capsys.readouterr().out


def test_an_import_that_fails_fails_its_extra_and_no_other(
    installed: ModuleType, wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = Tools({"langchain_core": (1, "ModuleNotFoundError: No module named 'langchain_core'")})
    monkeypatch.setattr(installed, "_run", tools)
    assert installed.main(arguments("extras", wheel)) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    (only,) = failed
    assert "langgraph_thread.py: ModuleNotFoundError" in only
    wanted = [line for line in tools.commands if "pip install" in line]
    assert any(f"waypost[reader] @ {wheel.as_uri()}" in line for line in wanted)
    assert len(wanted) == len(installed.MODULES)
