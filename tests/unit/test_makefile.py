"""The Makefile: every target is declared and explained, and the demo installs and imports only what it needs."""

import importlib.metadata
import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE)


def make(*arguments: str) -> str:
    done = subprocess.run(
        # Below another make, as in "make test", it would also say which directory it enters.
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pins(lock: str) -> dict[str, str]:
    """Version, marker and hashes of each package in a lock file."""
    text = (ROOT / lock).read_text().replace("\\\n", "")
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(.*)$", text, re.MULTILINE))


def test_no_target_depends_on_a_file_of_its_name() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert sorted(" ".join(phony).split()) == sorted(TARGETS)


def test_help_lists_each_target_once_below_a_heading() -> None:
    listed = make("help").strip("\n").splitlines()
    assert [line.split()[0] for line in listed if line.startswith("  ")] == TARGETS
    assert len([line for line in listed if line and not line.startswith(" ")]) == len(
        re.findall(r"^##@ ", MAKEFILE, re.MULTILINE)
    )
    assert not listed[0].startswith(" ")


def test_the_demo_installs_its_own_packages_and_everything_else_comes_on_top(tmp_path: Path) -> None:
    environment = f"VENV={tmp_path / 'environment'}"
    small, everything = "-r requirements-demo.lock", "-r requirements.lock"
    demo = make("--dry-run", "demo", environment)
    assert small in demo
    assert everything not in demo
    setup = make("--dry-run", "setup", environment)
    assert setup.index(small) < setup.index(everything)


def test_what_the_demo_installs_is_a_small_part_of_what_tests_install() -> None:
    demo, everything = pins("requirements-demo.lock"), pins("requirements.lock")
    assert len(demo) <= 60 < len(everything)
    assert demo.items() <= everything.items()


MODULES = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.iter_modules(package.__path__, sys.argv[1] + "."):
    importlib.import_module(module.name)
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_the_demo_imports_nothing_that_it_did_not_install() -> None:
    (module,) = re.findall(r"-m (tests[\w.]*\.demo)$", MAKEFILE, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", MODULES, module], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    owners = importlib.metadata.packages_distributions()
    allowed = set(pins("requirements-demo.lock")) | {"pip", "setuptools", "waypost"}
    foreign = {
        name: owners[name]
        for name in done.stdout.split()
        if name in owners and not allowed & {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners[name]}
    }
    assert "rich" in done.stdout.split()
    assert foreign == {}


def test_the_tools_that_write_locks_and_releases_are_pinned() -> None:
    assert {"uv", "twine", "cyclonedx-bom", "hatchling"} <= pins("deploy/tools.lock").keys()
    recipes = [line for line in MAKEFILE.replace("\\\n", " ").splitlines() if line.startswith("\t")]
    installs = [line for line in recipes if re.search(r"\$\(PIP\)|-m pip .*\binstall\b", line)]
    loose = [line for line in installs if not re.search(r"--require-hashes|--no-deps", line)]
    assert len(installs) >= 8
    # What an empty environment gets with the wheel is what the registry has: that is what this one install checks.
    assert [line.split()[-1] for line in loose] == ["dist/*.whl"]


@pytest.mark.parametrize("lock", ["requirements-demo.lock", "deploy/tools.lock"])
def test_every_package_of_a_lock_has_hashes_and_no_lock_names_an_address(lock: str) -> None:
    found = pins(lock)
    assert found
    assert [name for name, pinned in found.items() if "--hash=sha256:" not in pinned] == []
    assert "://" not in (ROOT / lock).read_text()


@pytest.fixture(scope="module")
def pip_progress() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pip_progress", ROOT / "deploy/pip_progress.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "some.lock"
    path.write_text(
        "alpha==1 \\\n    --hash=sha256:0\nbeta[extra]==2 ; sys_platform == 'win32' \\\n    --hash=sha256:0\n"
        "gamma==3 \\\n    --hash=sha256:0\n"
    )
    return path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_of_pip_counts_packages(pip_progress: ModuleType, lock: Path) -> None:
    assert pip_progress.locked(lock) == 3
    terminal = Terminal()
    display = pip_progress.Display(terminal, 3)
    for line in (
        "Ignoring beta: markers don't match your environment",
        "Collecting gamma==3 (from -r some.lock)",
    ):
        display.feed(line)
        display.refresh()
    assert "1 of 3: beta" in terminal.getvalue()
    assert terminal.getvalue().rpartition("\r")[2].startswith("\033[K      2 of 3: gamma (")
    display.feed("Installing collected packages: gamma, alpha")
    display.refresh()
    assert "3 of 3: unpacking" in terminal.getvalue()


def test_what_pip_prints_is_shown_only_if_it_fails(pip_progress: ModuleType, lock: Path) -> None:
    def run(exit_code: int) -> tuple[int, str]:
        stream = io.StringIO()
        code = (
            f"import sys; print('Collecting alpha==1'); print('why', file=sys.stderr); sys.exit({exit_code})"
        )
        return pip_progress.main([sys.executable, "-c", code, "-r", str(lock)], stream), stream.getvalue()

    assert run(0)[0] == 0
    assert re.fullmatch(r" +done after \d+ s\n", run(0)[1])
    failed, shown = run(3)
    assert failed == 3
    assert "failed after" in shown
    assert {"Collecting alpha==1", "why"} <= set(shown.splitlines())
