"""The documentation: what it tells to type is what the tool takes, and what it names exists."""

import ast
import inspect
import json
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import waypost
from waypost import adapters
from waypost_worker.cli.app import build

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> Iterator[str]:
    """The waypost commands in a page's blocks of code, without pipe and comment."""
    for block in re.findall(
        r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r" && | \| | > ", line):
                typed = part.strip().removeprefix(".venv/bin/")
                if re.match(r"waypost [a-z]", typed):
                    yield typed


TYPED = [(page.name, typed) for page in PAGES for typed in commands(page)]


def test_there_are_commands_to_look_at() -> None:
    assert len(TYPED) > 50


@pytest.mark.parametrize(("page", "typed"), TYPED, ids=[f"{page}: {typed}" for page, typed in TYPED])
def test_a_command_in_the_docs_is_one_that_the_tool_takes(page: str, typed: str) -> None:
    tokens = shlex.split(typed, comments=True)[1:]
    command, _, ignored = build(tokens[0]).parse_args(tokens, exit_on_error=False, print_error=False)
    assert command is not None
    assert not ignored


def test_every_page_has_its_place_in_the_site() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [*PAGES[1:], *(ROOT / "docs/api").glob("*.md")]
    names = [str(page.relative_to(ROOT / "docs")) for page in pages]
    assert [name for name in names if not re.search(rf"[ /]{re.escape(name)}\n", listed)] == []


PUBLIC = [
    *(f"waypost.{name}" for name in waypost.__all__),
    *(f"waypost.adapters.{name}" for name in adapters.__all__),
    *(
        f"waypost.adapters.{module}.{name}"
        for module in ("langgraph", "openai_agents", "agent_framework", "claude_agent_sdk", "google_adk")
        for name in import_module(f"waypost.adapters.{module}").__all__
    ),
]


def test_the_api_pages_have_every_public_name_once_and_nothing_else() -> None:
    pages = [page.read_text("utf-8") for page in (ROOT / "docs/api").glob("*.md")]
    listed = re.findall(r"^::: (\S+)$", "\n".join(pages), re.MULTILINE)
    assert sorted(listed) == sorted(PUBLIC)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_what_is_copied_from_a_page_has_no_prompt(page: Path) -> None:
    for block in re.findall(
        r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        assert [line for line in block.splitlines() if re.match(r"\s*(\$|>>>) ", line)] == []


SIZES = json.loads((ROOT / "docs/measured/extras.json").read_text("utf-8"))["extras"]
ADAPTERS = ("langgraph", "openai-agents", "agent-framework", "claude-agent-sdk", "google-adk")


def test_the_page_on_installing_has_the_measured_size_of_each_extra() -> None:
    page = (ROOT / "docs/install.md").read_text("utf-8")
    rows = re.findall(r"^\| `?\(?([\w-]+)\)?`? \| .* \| (\d+) \| ([\d,]+) MB \|$", page, re.MULTILINE)
    shown = {
        "" if name == "none" else name: (int(count), int(mb.replace(",", ""))) for name, count, mb in rows
    }
    assert shown == {name: (size["packages"], size["mb"]) for name, size in SIZES.items()}


def test_the_readme_has_the_measured_sizes() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `?\(?([\w-]+)[^|]*\| [^|]* \| ([^|]*) \|$", text, re.MULTILINE))
    bare = SIZES[""]["mb"]
    more = sorted(SIZES[name]["mb"] - bare for name in ADAPTERS)
    assert rows["none"] == f"{bare} MB"
    assert rows["langgraph"] == f"{more[0]} to {more[-1]} MB more"
    for name in ("reader", "worker", "console", "dev"):
        assert rows[name] == f"{SIZES[name]['mb'] - bare} MB more"


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert [link for link in links if link and "://" not in link and not (ROOT / link).exists()] == []


@pytest.mark.parametrize(("page", "least"), [("promises.md", 80), ("security.md", 50)])
def test_every_test_that_a_page_of_promises_names_exists(page: str, least: int) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > least
    assert text.count("`tests/") == len(named)
    assert [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"^\s*(async def|def|class) {name}\b", (ROOT / path).read_text(), re.MULTILINE)
    ] == []


SCENARIOS = sorted((ROOT / "tests/faults").glob("test_*.py"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_a_fault_scenario_says_what_it_breaks_and_what_must_hold_and_is_listed(scenario: Path) -> None:
    said = ast.get_docstring(ast.parse(scenario.read_text("utf-8"))) or ""
    assert re.search(r"\n\nBreaks: .*\nMust hold: ", said, re.DOTALL)
    assert f"| `{scenario.name}` | " in (ROOT / "docs/checking-the-claim.md").read_text("utf-8")


def test_the_drawings_are_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, "deploy/reference_pictures.py", "--check"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


POSITIONS = (
    "agent",
    "subscriber",
    "reader",
    "HTTP",
    "console",
    "machine",
    "snapshot store",
    "results writer",
)


def test_the_threat_model_has_a_row_for_each_position_and_a_test_for_each_promise() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \*\*([\w ]+)\*\*: (.*) \|$", page, re.MULTILINE)
    assert tuple(position for position, _ in rows) == POSITIONS
    assert all(len(row.split(" | ")) == 4 and all(row.split(" | ")) for _, row in rows)
    promises = [table for table in page.split("### ") if "| promise | test |" in table]
    assert len(promises) == 8
    for table in promises:
        lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
        assert lines
        assert all("`tests/" in line for line in lines), table


# Samples of code.

OLD_NAMES = re.compile(
    r"\b(room|saved|accepted|seen)\(\)|\.(room|saved|accepted|seen|publish|counter|fetch_all)\b\(?"
    r"|\bwaypost\.(Page|Policy|WaitedResult|spans|token_file|publisher_options)\b|[( `]options="
)


def samples() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            yield page.name, block


SAMPLES = list(samples())


@pytest.mark.parametrize(("page", "sample"), SAMPLES, ids=[page for page, _ in SAMPLES])
@pytest.mark.filterwarnings("error")
def test_a_sample_imports_and_calls_what_there_is(page: str, sample: str) -> None:
    """As far as one can tell without running it: its imports, names and keywords are ours of today."""
    tree = ast.parse(f"async def sample():\n{textwrap.indent(sample, '    ')}")
    names: dict[str, Any] = {"waypost": waypost}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "waypost":
            assert node.attr in waypost.__all__
        if isinstance(node, ast.Call) and re.fullmatch(r"(waypost\.)?[A-Z]\w+", ast.unparse(node.func)):
            called = names.get(
                name := ast.unparse(node.func).removeprefix("waypost."), getattr(waypost, name, None)
            )
            if called is not None:
                taken = {*inspect.signature(called).parameters, *waypost.PublisherOptions.__annotations__}
                assert {word.arg for word in node.keywords} <= taken


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_no_page_has_an_old_name(page: Path) -> None:
    if page.name != "versioning.md":
        code = re.findall(r"^```python\n.*?^```|`[^`\n]+`", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        assert [text for text in code if OLD_NAMES.search(text)] == []
