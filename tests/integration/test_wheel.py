"""What ``pip install waypost`` brings: a wheel built here, in an environment of its own with nothing but its needs.

No network is used: the packages that the wheel requires are linked from the environment of the tests.
"""

import ast
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, distribution, version
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
#: All that an agent gets. Each one more is a decision.
NEEDED = {
    "aiokafka",
    "annotated-types",
    "async-timeout",
    "cramjam",
    "orjson",
    "packaging",
    "pydantic",
    "pydantic-core",
    "typing-extensions",
    "typing-inspection",
}
LARGEST = 2_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(to)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (built,) = to.glob("waypost-*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def requirements(raw: list[str] | None, extra: str = "") -> Iterator[Requirement]:
    for text in raw or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def closure(first: Iterator[Requirement]) -> dict[str, Distribution]:
    """The distributions that these requirements bring, by name."""
    found: dict[str, Distribution] = {}
    pending = [(requirement.name, extra) for requirement in first for extra in ("", *requirement.extras)]
    while pending:
        name, extra = pending.pop()
        found[canonicalize_name(name)] = here = distribution(name)
        for requirement in requirements(here.requires, extra):
            if canonicalize_name(requirement.name) not in found:
                pending += [(requirement.name, extra) for extra in ("", *requirement.extras)]
    return found


@pytest.fixture(scope="module")
def bare(wheel: Path, metadata: Message, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel and what it requires."""
    root = tmp_path_factory.mktemp("bare")
    venv.create(root, with_pip=False, symlinks=True)
    python = root / "bin" / "python"
    options = ["--no-deps", "--no-index", "--no-cache-dir", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)],
        check=True,
        capture_output=True,
    )
    (packages,) = (root / "lib").glob("python*/site-packages")
    for here in closure(requirements(metadata.get_all("Requires-Dist"))).values():
        for file in here.files or ():
            target = packages / file.parts[0]
            if file.parts[0] not in ("..", "__pycache__") and not target.exists():
                target.symlink_to(Path(str(here.locate_file(file.parts[0]))))
    return python


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, timeout=60, env=environment, check=False
    )


def test_a_bare_install_requires_only_what_publishing_needs(metadata: Message) -> None:
    assert closure(requirements(metadata.get_all("Requires-Dist"))).keys() == NEEDED


def test_the_wheel_holds_both_packages_with_their_sql_and_no_tests(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "waypost",
        "waypost_worker",
    }
    for room in ("schemas/waypost", "worker/waypost_worker"):
        stored = {
            str(path.relative_to((REPOSITORY / room).parent))
            for path in (REPOSITORY / room).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert stored <= set(names)
    assert wheel.stat().st_size < LARGEST


PUBLISH = """
import sys
before = set(sys.modules)
import waypost
light = set(sys.modules) - before
waypost.Publisher("localhost:9092"); waypost.SyncPublisher; waypost.Subscriber; waypost.CheckpointManager
from pathlib import Path
print(len(light))
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
print(waypost.__file__)
"""


def test_an_agent_can_publish_with_nothing_else_installed(bare: Path) -> None:
    done = run(bare, "-c", PUBLISH)
    assert done.returncode == 0, done.stderr
    count, loaded, where = done.stdout.splitlines()
    assert Path(where).is_relative_to(bare.parents[1])
    assert int(count) < 60
    assert not {"waypost_worker", "pydantic", "aiokafka"} & set(loaded.split())


def test_the_reader_says_which_extra_it_needs(bare: Path) -> None:
    done = run(
        bare, "-c", "import asyncio, waypost; asyncio.run(waypost.Reader('postgresql://x').sessions())"
    )
    assert (
        "ImportError: waypost.Reader needs asyncpg: install it with pip install 'waypost[reader]'"
        in done.stderr
    )


def test_the_codec_says_which_extra_it_needs(bare: Path) -> None:
    made = "waypost.Codec(waypost.DirectoryKeyStore('keys'), waypost.FileWrapper('key'))"
    done = run(bare, "-c", f"from waypost import *; import waypost; {made}")
    assert (
        "ImportError: waypost.Codec needs cryptography: install it with pip install 'waypost[encryption]'"
        in done.stderr
    )


@pytest.mark.parametrize("arguments", [("--help",), ("doctor",), ("publish", "--version"), ()])
def test_the_command_line_says_which_extra_it_needs(bare: Path, arguments: tuple[str, ...]) -> None:
    for done in (
        run(bare.with_name("waypost"), *arguments),
        run(bare, "-m", "waypost", *arguments),
        run(bare, "-m", "waypost_worker.cli", *arguments),
    ):
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("waypost: the command line needs more packages")
        assert "pip install 'waypost[worker]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_version_needs_no_extra(bare: Path) -> None:
    for done in (
        run(bare.with_name("waypost"), "--version"),
        run(bare, "-m", "waypost", "--version"),
        run(bare, "-m", "waypost_worker.cli", "--version"),
    ):
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{version('waypost')}\n", "")


def uses(code: str) -> str:
    """The imports of a program, and each attribute that it takes of ``waypost``."""
    tree = ast.parse(code)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "waypost"
    }
    return "\n".join([*map(ast.unparse, imports), *sorted(names)])


def test_the_examples_of_the_readme_need_no_extra(bare: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    plain = [code for code in examples if "waypost.adapters" not in code]
    assert plain
    for code in plain:
        assert "waypost." in uses(code)
        done = run(bare, "-W", "error", "-c", uses(code))
        assert (done.returncode, done.stderr) == (0, "")


MEASURE = """
import subprocess, sys, time
def best(code):
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - began)
    return min(times)
best("import waypost")
bare, package, publisher = best("pass"), best("import waypost"), best("import waypost; waypost.Publisher")
print(f"python alone {bare * 1000:.0f} ms, import waypost {package * 1000:.0f} ms ({package / bare:.1f} times), "
      f"with waypost.Publisher {publisher * 1000:.0f} ms ({publisher / bare:.1f} times)")
"""


def test_what_importing_takes_is_reported(bare: Path) -> None:
    # What holds is counted above, in modules; milliseconds are those of this machine now.
    done = run(bare, "-c", MEASURE)
    print(done.stdout.strip())
    assert re.fullmatch(r"python alone \d+ ms, import waypost \d+ ms .*\n", done.stdout), done.stderr
