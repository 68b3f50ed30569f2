"""deploy/language.py: which phrases it finds in which files, and which exceptions it allows."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from tests.unit.deploy_scripts import DEPLOY, script

LIST = tomllib.loads((DEPLOY / "language.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def language() -> ModuleType:
    return script("language")


def found(language: ModuleType, path: str, text: str, *allowed: dict[str, str]) -> list[tuple[int, str]]:
    rules = language.Rules({**LIST, "allow": allowed})
    return sorted((each.line, each.found) for each in language.check(path, text, rules, set()))


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.md", "Agents are told.\n", [(1, "told")]),
        ("a.md", "Fine.\n\nIt will\ngo\non from here.\n", [(4, "go on")]),
        ("a.md", "- one\n- Whoever asks\n", [(2, "Whoever")]),
        ("a.md", "| a | b |\n|---|---|\n| x | an own one, of its own |\n", [(3, "of its own")]),
        ("a.md", "```sh\nmend it\n```\nMend it.\n", [(4, "Mend")]),
        ("a.md", "Run `mend it` in [the colour](mend.md).\n", [(1, "colour")]),
        ("a.md", "The `x\ny` lines,\nthen mend.\n", [(3, "mend")]),
        ("a.py", '"""Mend it."""\n', [(1, "Mend")]),
        ("a.py", 'def f():\n    """Do it.\n\n    Then go on.\n    """\n', [(4, "go on")]),
        ("a.py", "x = 1  # told it\n", [(1, "told")]),
        ("a.py", "# The rest must\n# go on\nx = 1\n", [(2, "go on")]),
        ("a.py", "x = '#mend'  # go on\n", [(1, "go on")]),
        ("a.py", 'raise ValueError(f"{x} must be mended: {y} is told")\n', [(1, "mended"), (1, "told")]),
        (
            "a.py",
            'raise ValueError(\n    "the worker "\n    "goes on for ever"\n)\n',
            [(2, "for ever"), (2, "goes on")],
        ),
        ("a.py", 'kind = "told"\nother = "go on"\n', []),
        ("a.py", "x = 1  # noqa: told\n", []),
        ("a.html", "<p class='mend'>{{ mend }} Go <b>on</b> mends</p>\n", [(1, "mends")]),
        ("a.html", "<script>\nmend()\n</script>\n<p>mended</p>\n", [(4, "mended")]),
        ("a.yaml", "a: mend\n# mend this\nsummary: goes on\n", [(2, "mend"), (3, "goes on")]),
        ("Makefile", "all:  ## mend everything\n\tmend\n", [(1, "mend")]),
    ],
)
def test_prose_is_checked_and_code_is_not(
    language: ModuleType, path: str, text: str, expected: Sequence[tuple[int, str]]
) -> None:
    assert found(language, path, text) == expected


def test_of_tests_only_the_names_are_checked(language: ModuleType) -> None:
    text = '"""Told."""\n\n\nasync def test_it_goes_on() -> None:\n    mend("so be it: it is told")  # anew\n'
    assert found(language, "tests/unit/test_a.py", text) == [(4, "goes on")]
    assert found(language, "tests/tools/a.py", text) == [(1, "Told"), (5, "anew"), (5, "be it"), (5, "told")]


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ('"""What the log holds."""\n', True),
        ('"""RefusedError unless the log reaches there."""\n', True),
        ('"""Return the end. Raise RefusedError unless the log reaches there."""\n', False),
        ('"""Return what the log holds."""\n', False),
        ('"""Whether it is open."""\n', True),
        ("def f():\n    pass\n\n\nX = 'Whether it is open'\n", False),
    ],
)
def test_a_docstring_begins_with_a_verb_or_a_noun(language: ModuleType, text: str, is_found: bool) -> None:
    assert bool(found(language, "a.py", text)) == is_found


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("What is lost is counted.", True),
        ("It has a log of its own.", True),
        ("It is one of its own records.", False),
        ("They have so many records that it waits.", False),
        ("What is lost?", False),
        ("It says what is lost.", False),
        ("Fine. Where one is set, use it.", True),
        ("A file where one is lost.", False),
        ("There is no such thing, and there are none.", False),
        ("There\nare none.", False),
        ("An unreachable cluster is no error.", True),
        ("It is no longer there.", False),
        ("Use the first: if it fails: try the second.", True),
        ("Use the first: it is fast.", False),
        ("A worker of the group of the topic of the cluster.", True),
        ("It keeps 5MB.", True),
        ("It keeps 5 MB, including headers.", False),
        ("All of them, headers included.", True),
        ("Traces are not included.", False),
        ("A thousand creates, at 1,000 a second.", True),
        ("It took a second.", False),
        ("Check it, else it fails.", True),
        ("Nothing else is lost.", False),
    ],
)
def test_the_form_of_sentences(language: ModuleType, text: str, is_found: bool) -> None:
    assert bool(found(language, "a.md", text + "\n")) == is_found


def listed() -> list[str]:
    """Return the phrases of the list that are plain words."""
    phrases = [
        *LIST["spelling"],
        *(synonym for synonyms in LIST["glossary"].values() for synonym in synonyms),
        *(find for entry in LIST["phrase"] for find in entry["find"]),
    ]
    return [phrase for phrase in phrases if not set(phrase) & set("^\\()[]?|*+")]


@pytest.mark.parametrize("phrase", listed())
def test_each_phrase_of_the_list_is_found_in_any_case_and_across_lines(
    language: ModuleType, phrase: str
) -> None:
    for text in (
        f"Then {phrase} it.",
        f"Then {phrase.upper()} it.",
        f"Then {phrase.replace(' ', chr(10))}\nit.",
    ):
        assert found(language, "a.md", text + "\n")
    assert not found(language, "a.md", f"Then x{phrase.replace(' ', '-')}x it.\n")


def test_a_place_is_reported_once_with_what_to_write(language: ModuleType) -> None:
    rules = language.Rules(
        {
            "files": {},
            "phrase": [{"find": ["go on"], "write": "continue"}, {"find": ["go on forever"], "write": "x"}],
        }
    )
    (one,) = language.check("docs/a.md", "They go on forever.\n", rules, set())
    assert str(one) == "docs/a.md:1: 'go on': continue"


def test_a_phrase_must_begin_with_a_word(language: ModuleType) -> None:
    with pytest.raises(ValueError, match="must begin with a word"):
        language.Rules({"files": {}, "phrase": [{"find": [r"\w+ on"], "write": "x"}]})


ALLOWED = {"path": "docs/*.md", "text": "run many at once", "reason": "at the same time"}


def test_an_exception_covers_its_text_in_its_files_and_nothing_else(language: ModuleType) -> None:
    text = "You can run many\nat once. It ends at once.\n"
    assert found(language, "docs/a.md", text, ALLOWED) == [(2, "at once")]
    assert len(found(language, "README.md", text, ALLOWED)) == 2


@pytest.fixture
def tree(language: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree without git that contains a list and a page."""
    monkeypatch.setattr(language, "ROOT", tmp_path)
    monkeypatch.setattr(language, "LIST", tmp_path / "language.toml")
    (tmp_path / "language.toml").write_text(
        """
        [files]
        check = ["*.md"]
        leave = ["notes/*"]
        [[phrase]]
        find = ["at once"]
        write = "write 'immediately'"
        [[allow]]
        path = "*.md"
        text = "many at once"
        reason = "at the same time"
        """
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("It ends at once.\n")
    return tmp_path


def run(language: ModuleType, tree: Path, *arguments: str) -> int:
    return int(language.main(["--root", str(tree), *arguments]))


def test_a_clean_tree_is_reported_with_how_many_files_were_checked(
    language: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "a.md").write_text("Run many at once.\n")
    assert run(language, tree) == 0
    assert capsys.readouterr().out == "Language: 1 files checked, no problems.\n"


def test_a_finding_fails_the_check(
    language: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "a.md").write_text("Run many at once.\n\nIt ends at once.\n")
    assert run(language, tree) == 1
    assert capsys.readouterr().err == (
        "a.md:3: 'at once': write 'immediately'\nLanguage: 1 files checked, 1 problem(s).\n"
    )


def test_an_exception_that_is_no_longer_needed_fails_the_check(
    language: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "a.md").write_text("Fine.\n")
    assert run(language, tree) == 1
    assert "the exception 'many at once' in *.md is no longer needed" in capsys.readouterr().err
    assert run(language, tree, "a.md") == 0  # some files alone can't show that


def test_every_exception_of_the_list_has_a_reason() -> None:
    assert [entry for entry in LIST["allow"] if not entry["reason"].strip()] == []
