"""The pages for contributors: short, and every path, module, target and name in them exists."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from difflib import SequenceMatcher
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "CONTRIBUTING.md"
TEXT = GUIDE.read_text(encoding="utf-8")
DECISIONS = ROOT / "docs" / "decisions"
# A path in the guide starts at the root of the repository or of one of the two packages.
BASES = (ROOT, ROOT / "schemas" / "waypost", ROOT / "worker" / "waypost_worker")
PACKAGES = (ROOT / "schemas" / "waypost", ROOT / "worker" / "waypost_worker", ROOT / "tests")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")


def blocks(kind: str) -> list[str]:
    """The code blocks of the guide that are marked with this word."""
    return [body for marked, body in FENCE.findall(TEXT) if marked == kind]


def units(text: str) -> list[str]:
    """Paragraphs and list items, without code blocks. A name must be defined in a file that its unit mentions."""
    return [
        unit
        for paragraph in re.split(r"\n{2,}", FENCE.sub("\n", text))
        for unit in re.split(r"\n(?=- |\d+\. )", paragraph)
        if unit.strip()
    ]


def found(path: str) -> list[Path]:
    """Where a path is, among the places at which it may start. More than one makes it ambiguous."""
    return [base / path for base in BASES if (base / path).exists()]


def module(name: str) -> Path | None:
    """The file or folder of a module of this repository."""
    for base in (ROOT, ROOT / "schemas", ROOT / "worker"):
        path = base.joinpath(*name.split("."))
        if (path / "__init__.py").exists():
            return path
        if path.with_suffix(".py").exists():
            return path.with_suffix(".py")
    return None


@cache
def targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def names(path: Path) -> frozenset[str]:
    """What a Python file, or a folder of them, defines: functions, classes, their members, module-level names."""
    if path.is_dir():
        return frozenset(name for file in path.rglob("*.py") for name in names(file))
    if path.suffix != ".py":
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(_assigned(tree.body)) | frozenset(_defined(tree))


def _defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            members = [
                one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            yield from (f"{node.name}.{member}" for member in [*members, *_assigned(node.body)])


def _assigned(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def is_path(span: str) -> bool:
    return "/" in span or bool(re.fullmatch(r"[\w.-]+\.(py|md|sql|toml|yaml|yml|lock)", span))


def problem(span: str, files: list[Path]) -> str | None:
    """Why what stands in backticks does not exist; ``files`` are those that the same unit mentions."""
    if is_path(span):
        places = found(span)
        return None if len(places) == 1 else f"{len(places)} paths of this name"
    if made := re.fullmatch(r"make ([a-z-]+)", span):
        return None if made[1] in targets() else "no such target in the Makefile"
    if run := re.fullmatch(r"python -m ([\w.]+)", span):
        return None if module(run[1]) else "no such module"
    if re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", span) and module(span):
        return None
    if any(span in names(file) for file in files):
        return None
    if re.fullmatch(r"WAYPOST_[A-Z_]+", span) and any(span in file.read_text() for file in files):
        return None
    if span == "CI":
        read = re.compile(r"""environ(\.get\(|\[)"CI"[)\]]""")
        return (
            None if any(read.search(file.read_text()) for file in python_files(ROOT / "tests")) else "unused"
        )
    return "neither a path, a target, a module, nor a name that a file mentioned beside it defines"


def python_files(*folders: Path) -> list[Path]:
    return sorted(file for folder in folders for file in folder.rglob("*.py"))


def spans(text: str) -> Iterator[tuple[str, list[Path]]]:
    for unit in units(text):
        listed = SPAN.findall(unit)
        yield from (
            (span, [path for one in listed if is_path(one) for path in found(one)]) for span in listed
        )


def test_it_has_at_most_1000_words() -> None:
    assert len(TEXT.split()) <= 1000


def test_everything_in_backticks_exists() -> None:
    listed = list(spans(TEXT))
    assert len(listed) > 50
    assert [f"`{span}`: {why}" for span, files in listed if (why := problem(span, files))] == []


@pytest.mark.parametrize(
    "span",
    [
        "model/commandos.py",
        "make tset",
        "python -m tests.simulatoin",
        "waypost.nowhere",
        "NOWHERE",
        "Deployment.unti",
    ],
)
def test_what_does_not_exist_is_found(span: str) -> None:
    files = [file for file in python_files(ROOT / "tests") if "class Deployment" in file.read_text()]
    assert problem(span, files)


def test_links_lead_somewhere() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", TEXT)]
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


# The tree.


def tree() -> dict[Path, str]:
    """Each folder of the tree, with what is said of it."""
    (drawn,) = [block for block in blocks("text") if "waypost_worker/" in block]
    folders: dict[Path, str] = {}
    above: list[tuple[int, Path]] = []
    for line in drawn.splitlines():
        name, _, said = line.strip().partition(" ")
        indent = len(line) - len(line.lstrip())
        above = [(at, path) for at, path in above if at < indent]
        path = (above[-1][1] if above else ROOT) / name
        above.append((indent, path))
        folders[path] = said.strip()
    return folders


def test_every_folder_of_the_tree_exists_and_has_a_line() -> None:
    drawn = tree()
    assert [str(path) for path in drawn if not path.is_dir()] == []
    assert [str(path) for path, said in drawn.items() if not said and path != ROOT / "tests"] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_folder_of_a_package_is_in_the_tree(package: Path) -> None:
    folders = [path for path in sorted(package.iterdir()) if path.is_dir() and any(path.rglob("*.py"))]
    assert [path.name for path in folders if path not in tree()] == []


# What is typed.


def typed() -> list[list[str]]:
    return [
        shlex.split(line, comments=True)
        for block in blocks("sh")
        for line in block.splitlines()
        if line.strip()
    ]


@pytest.mark.parametrize("command", typed(), ids=" ".join)
def test_a_command_can_be_typed(command: list[str]) -> None:
    match command:
        case ["make", target]:
            assert target in targets()
        case [".venv/bin/pytest", *arguments] if "-k" in arguments:
            assert _selected(arguments) > 0
        case [".venv/bin/pytest", *paths]:
            assert [path for path in paths if not (ROOT / path).exists()] == []
        case [".venv/bin/python", "-m", name, *arguments]:
            place = module(name)
            assert place is not None
            flags = [argument for argument in arguments if argument.startswith("--")]
            texts = [file.read_text() for file in python_files(place)]
            assert [flag for flag in flags if not any(f'"{flag}"' in text for text in texts)] == []
        case _:
            pytest.fail(f"nothing says how to check {command}")


def _selected(arguments: list[str]) -> int:
    """How many tests pytest finds for these arguments."""
    looked = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert looked.returncode == 0, looked.stdout + looked.stderr
    return sum("::" in line for line in looked.stdout.splitlines())


# A command type.


def test_the_steps_name_every_file_that_knows_a_command_type() -> None:
    section = TEXT.partition("## Add a command type")[2].partition("\n## ")[0]
    named = {path for span in SPAN.findall(section) if is_path(span) for path in found(span)}
    knows = re.compile(r"\bUnpin(ned)?\b|\bUNPIN(NED)?\b|\bdef unpin\b")
    product = python_files(*PACKAGES[:2])
    knowing = [file for file in product if knows.search(file.read_text(encoding="utf-8"))]
    assert len(knowing) >= 10
    assert [str(file.relative_to(ROOT)) for file in knowing if file not in named] == []


# A commit.


def test_the_example_of_a_commit_is_one() -> None:
    (example,) = [block for block in blocks("text") if "waypost_worker/" not in block]
    subject, empty, *body = example.splitlines()
    assert re.fullmatch(r"[a-z][a-z-]*: [a-z].*[^.]", subject)
    assert len(subject) <= 65
    assert empty == ""
    assert max(map(len, body)) <= 72


# Decisions.


def decisions() -> list[Path]:
    return sorted(DECISIONS.glob("[0-9]*.md"))


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    assert [int(page.name[:4]) for page in decisions()] == list(range(1, len(decisions()) + 1))
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index) == [page.name for page in decisions()]


@pytest.mark.parametrize("page", decisions(), ids=lambda page: page.stem)
def test_a_decision_has_its_three_parts_on_a_short_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    title, *_ = text.splitlines()
    assert re.fullmatch(rf"# {int(page.name[:4])}\. \S.*[^.]", title)
    assert f"[{title.partition('. ')[2]}]({page.name})" in (DECISIONS / "README.md").read_text(
        encoding="utf-8"
    )
    assert re.findall(r"^\*\*(\w+)\.\*\* ", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert len(text.split()) <= 250


@pytest.mark.parametrize(
    "page",
    [
        *decisions(),
        *sorted((ROOT / "docs" / "measured").glob("*.md")),
        ROOT / "docs" / "known-limitations.md",
    ],
    ids=lambda page: page.stem,
)
def test_a_file_that_a_page_names_exists(page: Path) -> None:
    listed = SPAN.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    # What is below build/ is written by the tools that the page names.
    named = [span for span in listed if re.fullmatch(r"(?!build/)(?:[\w.-]+/)+[\w.-]*", span)]
    assert [span for span in named if not found(span)] == []
    assert [span for span in listed if span.startswith("make ") and span.split()[1] not in targets()] == []


def anchors(page: Path) -> set[str]:
    """The headings of a page as a link names them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize(
    "page",
    [
        *sorted(DECISIONS.glob("*.md")),
        *sorted((ROOT / "docs" / "measured").glob("*.md")),
        ROOT / "docs" / "known-limitations.md",
    ],
    ids=lambda page: page.stem,
)
def test_links_of_a_page_lead_to_a_heading(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


# The changelog.

HEADINGS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def releases() -> dict[str, str]:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_changelog_begins_with_what_is_unreleased_and_knows_this_version() -> None:
    first, *others = releases()
    assert first == "Unreleased"
    assert [other for other in others if not re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", other)] == []
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in [other.partition(" ")[0] for other in others]


@pytest.mark.parametrize(("release", "text"), releases().items(), ids=releases())
def test_a_release_is_lists_of_single_sentences_under_the_usual_headings(release: str, text: str) -> None:
    parts = re.split(r"^### (.+)\n", text, flags=re.MULTILINE)
    assert parts[0].strip() == ""
    assert set(parts[1::2]) <= HEADINGS
    for entries in parts[2::2]:
        assert "\n\n" not in entries.strip(), "a blank line between entries"
        listed = re.split(r"^- ", entries.strip(), flags=re.MULTILINE)
        assert listed[0] == ""
        for one, other in combinations(listed[1:], 2):
            # The two that are most alike on purpose, about expire() and erase(), have a ratio of 0.75.
            alike = SequenceMatcher(None, one, other)
            assert alike.quick_ratio() < 0.8 or alike.ratio() < 0.8, f"the same twice:\n- {one}- {other}"
        for entry in map(str.strip, listed[1:]):
            assert entry.endswith("."), entry
            assert not re.search(r"[.!?]\s", entry), entry
            assert len(entry) <= 300, entry
