"""``make test-pythons`` and ``make test-extras``: what users install, on each Python and with each extra alone.

``pythons`` makes an environment for each supported Python on this machine, from the lock file and the wheel, and runs
the unit tests in it, and tests that start ``waypost dev``, publish and read. ``extras`` installs the wheel with one
extra at a time into an empty environment, and imports what it is for: its modules, and what the examples that name it
import. uv makes the environments; nothing downloads a Python.

Exit codes: 0 all is well, 1 something failed, 2 there is nothing to test with.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
EXAMPLES: Final = ROOT / "examples"
TESTS: Final = ("tests/unit", "tests/integration/test_cli_dev.py", "tests/integration/test_readme.py")
#: What an extra is for. Those of adapters are the examples' as well.
MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("waypost", "waypost.publisher.client", "waypost.subscriber.client"),
    "reader": ("waypost.reader.client",),
    "encryption": ("waypost.encryption.settings", "waypost.encryption.session_key"),
    "worker": ("waypost_worker.cli", "waypost_worker.runtime.worker", "waypost_worker.cli.doctor"),
    "console": ("waypost_worker.console.serve",),
    "oidc": ("waypost_worker.console.serve", "waypost_worker.console.provider"),
    "dev": ("waypost_worker.devserver", "waypost_worker.cli.dev", "waypost_worker.console.serve"),
    "telemetry": ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"),
    "object-storage": ("obstore",),
    "langgraph": ("waypost.adapters.langgraph",),
    "openai-agents": ("waypost.adapters.openai_agents",),
    "agent-framework": ("waypost.adapters.agent_framework",),
    "claude-agent-sdk": ("waypost.adapters.claude_agent_sdk",),
    "google-adk": ("waypost.adapters.google_adk",),
}
_NEEDS: Final = re.compile(r"Needs pip install '?(?:waypost(?:\[([\w-]+)\])?|([\w-]+))'?[, ]")
_SUMMARY: Final = re.compile(r"^=+ (.*\d (?:passed|failed|error).*?) =+$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome in one environment."""

    name: str
    passed: bool
    said: str
    seconds: float


def supported() -> list[str]:
    """The versions of Python that the project says it supports."""
    classifiers = _project()["classifiers"]
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each) for each in classifiers)
    return [each[1] for each in found if each]


def extras() -> list[str]:
    """The extras that users install."""
    return [name for name in _project()["optional-dependencies"] if name != "test"]


def needed(example: str) -> tuple[str, str]:
    """The extra and the other package that an example's first lines name; either may be empty."""
    found = _NEEDS.search(example)
    if found is None:
        raise ValueError("an example says what it needs: Needs pip install 'waypost[extra]'")
    return found[1] or "", found[2] or ""


def imports(source: str) -> str:
    """The imports of a program, as a program."""
    tree = ast.parse(source)
    kept = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(map(ast.unparse, kept))


def programs(extra: str) -> Iterator[tuple[str, str]]:
    """Yield the programs that must run with an extra alone, with their names."""
    yield "its modules", "\n".join(f"import {module}" for module in MODULES[extra])
    for path in sorted(EXAMPLES.glob("*.py")):
        source = path.read_text()
        if needed(source) == (extra, ""):
            yield path.name, imports(source)


def find_python(uv: str, version: str) -> str | None:
    """Return the path to a Python of that version, or None."""
    done = _run(uv, "python", "find", "--no-python-downloads", "--no-project", version)
    if done.returncode == 0:
        return done.stdout.strip()
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(root.glob(f"versions/{version}.*/bin/python"))
    return str(found[-1]) if found else None


def check_python(uv: str, python: str, version: str, wheel: Path, place: Path, jobs: int) -> Outcome:
    """Run the tests on one Python, with what the lock file names and the wheel."""
    begun = time.monotonic()
    done = _installed(
        uv, python, place, ["--require-hashes", "--requirements", str(ROOT / "requirements.lock")]
    )
    if done.returncode == 0:
        done = _run(uv, "pip", "install", "--python", place / "bin/python", "--no-deps", wheel)
    if done.returncode:
        return Outcome(version, False, _last_line(done), time.monotonic() - begun)
    # The installed package is tested: neither of its source folders is on the path.
    pytest = ["-m", "pytest", *TESTS, "-q", "-p", "no:cacheprovider", "-n", str(jobs), "--dist", "loadfile"]
    done = _run(place / "bin/python", *pytest, environment={"PATH": f"{place / 'bin'}:{os.environ['PATH']}"})
    print(done.stdout[-4000:] if done.returncode else "", end="", flush=True)  # noqa: T201
    summary = _SUMMARY.findall(done.stdout)
    return Outcome(
        version, done.returncode == 0, summary[-1] if summary else _last_line(done), time.monotonic() - begun
    )


def check_extra(uv: str, python: str, extra: str, wheel: Path, place: Path) -> Outcome:
    """Install the wheel with one extra alone, and import what it is for."""
    begun = time.monotonic()
    wanted = f"waypost[{extra}] @ {wheel.as_uri()}" if extra else f"waypost @ {wheel.as_uri()}"
    done = _installed(uv, python, place, [wanted])
    failed = "" if done.returncode == 0 else _last_line(done)
    for name, program in [] if failed else programs(extra):
        done = _run(place / "bin/python", "-I", "-c", program)
        if done.returncode:
            failed = f"{name}: {_last_line(done)}"
            break
    size = sum(file.lstat().st_size for file in place.rglob("*") if file.is_file()) // 1_000_000
    shutil.rmtree(place, ignore_errors=True)
    return Outcome(extra or "(none)", not failed, failed or f"{size} MB", time.monotonic() - begun)


def _installed(uv: str, python: str, place: Path, what: Sequence[str]) -> subprocess.CompletedProcess[str]:
    shutil.rmtree(place, ignore_errors=True)
    done = _run(uv, "venv", "--quiet", "--no-project", "--python", python, place)
    if done.returncode:
        return done
    return _run(uv, "pip", "install", "--quiet", "--python", place / "bin/python", *what)


def _run(
    *command: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - what is run is named here
        [*map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
    )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1].strip() if lines else f"ended with {done.returncode}"


def _project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def _show(kind: str, outcomes: Sequence[Outcome]) -> int:
    for one in outcomes:
        mark = "ok" if one.passed else "FAILED"
        print(f"{kind} {one.name:<18} {mark:<7} {one.seconds:5.0f} s  {one.said}")  # noqa: T201
    return 0 if all(one.passed for one in outcomes) else 1


def _pythons(uv: str, wheel: Path, into: Path, wanted: Sequence[str], jobs: int) -> int:
    outcomes, missing = [], []
    for version in wanted or supported():
        python = find_python(uv, version)
        if python is None:
            missing.append(version)
            continue
        print(f"Python {version}: {python}", flush=True)  # noqa: T201
        outcomes.append(check_python(uv, python, version, wheel, into / version, jobs))
    for version in missing:
        print(f"Python {version} is not here, so it was not tested")  # noqa: T201
    return _show("Python", outcomes) if outcomes and not (wanted and missing) else 2


def main(arguments: Sequence[str]) -> int:
    """Test, and show a table."""
    parser = argparse.ArgumentParser(prog="installed.py", description="Test what users install.")
    parser.add_argument("what", choices=("pythons", "extras"))
    parser.add_argument("names", nargs="*", help="versions or extras (default: all)")
    parser.add_argument("--uv", default="uv", help="the program uv")
    parser.add_argument("--wheel", type=Path, required=True, help="what is tested")
    parser.add_argument("--into", type=Path, required=True, help="directory for the environments")
    parser.add_argument("--jobs", type=int, default=2, help="test files at a time")
    given = parser.parse_args(arguments)
    wheel, into = given.wheel.resolve(), given.into.resolve()
    into.mkdir(parents=True, exist_ok=True)
    if given.what == "pythons":
        return _pythons(given.uv, wheel, into, given.names, given.jobs)
    names = given.names or ["", *extras()]
    return _show(
        "extra",
        [check_extra(given.uv, sys.executable, name, wheel, into / (name or "bare")) for name in names],
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
