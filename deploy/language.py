"""``make language``: do pages, help, messages, docstrings and comments read as written by a native speaker?

Finds phrases that are correct and foreign, British spellings, and sentences whose form is hard to follow. The list of
phrases, what to write instead, and the exceptions with their reasons are in ``language.toml`` next to this file. An
exception that no longer applies is reported as well.

Looked at: Markdown without code; docstrings, comments and texts of at least three words in Python; text in HTML
templates; comments and descriptions in YAML; the help of the Makefile; the names of tests.
"""

import argparse
import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
LIST: Final = Path(__file__).with_name("language.toml")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z'-]*")
_CODE: Final = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_PLAIN: Final = frozenset({str, int, ast.Load, ast.Store, ast.Name})
_DIRECTIVES: Final = ("noqa", "type:", "!", "pragma")
_LINK: Final = re.compile(r"\]\([^)\s]*\)")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of prose, the line on which it begins, and whether it is a docstring."""

    line: int
    text: str
    docstring: bool = False


@dataclass(frozen=True, slots=True)
class Phrase:
    """A pattern that should not appear, and what to write instead."""

    pattern: re.Pattern[str]
    write: str
    docstrings: bool  # only at the beginning of a docstring
    sentence: bool  # only at the beginning of a sentence


@dataclass(frozen=True, slots=True)
class Allowed:
    """A text that may contain a phrase, in files whose path matches, for a reason."""

    path: str
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A phrase that was found."""

    path: str
    line: int
    found: str
    write: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r}: {self.write}"


class Rules:
    """The phrases, by their first word where that is fixed, and the exceptions."""

    def __init__(self, listed: dict[str, Any]) -> None:
        self.allowed: Final = [Allowed(**entry) for entry in listed.get("allow", ())]
        self.files: Final[dict[str, list[str]]] = listed["files"]
        self._by_word: Final[dict[str, list[Phrase]]] = {}
        self._anywhere: Final[list[Phrase]] = []
        for british, american in listed.get("spelling", {}).items():
            self._add(british, f"write {american!r}", docstrings=False)
        for term, synonyms in listed.get("glossary", {}).items():
            for synonym in synonyms:
                self._add(synonym, f"docs/glossary.md calls this {term.lower()!r}", docstrings=False)
        for entry in listed.get("phrase", ()):
            for find in entry["find"]:
                self._add(find, entry["write"], docstrings=entry.get("docstrings", False))
        for entry in listed.get("form", ()):
            pattern = re.compile(entry["pattern"], re.DOTALL)
            self._anywhere.append(Phrase(pattern, entry["write"], docstrings=False, sentence=False))

    def _add(self, find: str, write: str, *, docstrings: bool) -> None:
        bare = find.removeprefix("^")
        first = _WORD.match(bare)
        if first is None:
            raise ValueError(f"a phrase must begin with a word: {find!r}")
        pattern = re.compile(bare.replace(" ", r"\s+") + r"(?![\w-])", re.IGNORECASE | re.DOTALL)
        phrase = Phrase(pattern, write, docstrings, sentence=find != bare)
        self._by_word.setdefault(first[0].lower(), []).append(phrase)

    def matches(self, passage: Passage) -> Iterator[tuple[re.Match[str], str]]:
        """Yield each match of a phrase in a passage, with what to write instead."""
        text = passage.text
        for word in _WORD.finditer(text):
            for phrase in self._by_word.get(word[0].lower(), ()):
                begins = not phrase.docstrings or (passage.docstring and not text[: word.start()].strip())
                if begins and (not phrase.sentence or _begins_sentence(text, word.start())):
                    found = phrase.pattern.match(text, word.start())
                    if found:
                        yield found, phrase.write
        for phrase in self._anywhere:
            for found in phrase.pattern.finditer(text):
                yield found, phrase.write


def _begins_sentence(text: str, at: int) -> bool:
    before = text[:at].rstrip(" \n*_\"'(")
    return not before or before[-1] in ".!?|-#"


def _blank(match: re.Match[str]) -> str:
    """Return what stands for a piece of code, with as many lines."""
    return "`x" + "\n" * match[0].count("\n") + "`"


def _prose(text: str) -> str:
    return _LINK.sub("]", _CODE.sub(_blank, text))


def markdown(text: str) -> Iterator[Passage]:
    """Yield the paragraphs, items of lists, rows of tables and headings of a page."""
    block: list[str] = []
    begun, fenced = 1, False

    def done() -> Iterator[Passage]:
        if any(line.strip() for line in block):
            yield Passage(begun, _prose("\n".join(block)))
        block.clear()

    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            yield from done()
        elif not fenced:
            if not line.strip() or re.match(r"\s*([-*|#>]|\d+\.)\s|\|", line):
                yield from done()
            if not block:
                begun = number
            block.append(line)
    yield from done()


def _text_of(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "`x`" for part in node.values)
        return "".join(part for part in parts if isinstance(part, str))
    return None


def _strings(tree: ast.Module) -> Iterator[tuple[ast.expr, str, bool]]:
    """Yield each text of a module, and whether it is a docstring."""
    docstrings: set[int] = set()
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Constant | ast.JoinedStr):
            if (text := _text_of(node)) is not None:
                yield node, text, id(node) in docstrings
            continue
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstrings.update(id(first.value) for first in node.body[:1] if isinstance(first, ast.Expr))
        if not isinstance(node, ast.AST):
            continue
        for value in vars(node).values():
            if type(value) is list:
                waiting += value
            elif value is not None and type(value) not in _PLAIN:
                waiting.append(value)


def python(text: str) -> Iterator[Passage]:
    """Yield the docstrings, the texts of at least three words and the comments of a module."""
    taken: dict[int, list[tuple[int, int]]] = {}
    for node, value, docstring in _strings(ast.parse(text)):
        last = node.end_lineno or node.lineno
        for line in range(node.lineno, last + 1):
            begin = node.col_offset if line == node.lineno else 0
            end = (node.end_col_offset or 0) if line == last else sys.maxsize
            taken.setdefault(line, []).append((begin, end))
        if docstring or value.count(" ") >= 2:
            yield Passage(node.lineno, _prose(value), docstring)
    yield from _comments(text.splitlines(), taken)


def _comments(lines: Sequence[str], taken: dict[int, list[tuple[int, int]]]) -> Iterator[Passage]:
    """Yield the comments; those of lines that follow one another are one passage."""
    block: list[str] = []
    begun = 0
    for number, line in enumerate([*lines, ""], 1):
        at = _comment_at(line, taken.get(number, ()))
        if block and (at is None or line[:at].strip()):
            yield Passage(begun, _prose("\n".join(block)))
            block.clear()
        if at is not None and not (comment := line[at + 1 :].strip()).startswith(_DIRECTIVES):
            begun = begun if block else number
            block.append(comment)


def _comment_at(line: str, taken: Sequence[tuple[int, int]]) -> int | None:
    """Return where the comment of a line begins, given the bytes of it that are texts."""
    at = line.find("#")
    while at >= 0:
        place = len(line[:at].encode())
        if not any(begin <= place < end for begin, end in taken):
            return at
        at = line.find("#", at + 1)
    return None


def template(text: str) -> Iterator[Passage]:
    """Yield the text of an HTML template without tags, expressions and scripts."""

    def lines(match: re.Match[str]) -> str:
        return " | " + "\n" * match[0].count("\n")

    bare = re.sub(r"<(script|style)\b.*?</\1>|\{[{%#].*?[}%#]\}|<[^>]*>", lines, text, flags=re.DOTALL)
    yield from markdown("\n".join(line.strip() for line in bare.split("\n")))


def remarks(text: str) -> Iterator[Passage]:
    """Yield comments and long texts of a file of another format, such as YAML or a Makefile."""
    for number, line in enumerate(text.splitlines(), 1):
        found = re.search(r"#+@?\s+(.*)|^\s*(?:summary|description): (.*)", line)
        if found:
            yield Passage(number, _prose(found[1] or found[2]))


def test_names(text: str) -> Iterator[Passage]:
    """Yield the names of the tests in a module, as words."""
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r"\s*(?:async )?def test_(\w+)\(", line)
        if found:
            yield Passage(number, found[1].replace("_", " "))


READERS: Final[dict[str, Callable[[str], Iterator[Passage]]]] = {
    ".md": markdown,
    ".py": python,
    ".html": template,
}


def check(path: str, text: str, rules: Rules, used: set[Allowed]) -> Iterator[Finding]:
    """Yield the findings in a file, one for each place. Exceptions that apply are added to ``used``."""
    reader = READERS.get(Path(path).suffix, remarks)
    if _matches(path, rules.files.get("names", ())):
        reader = test_names
    for passage in reader(text):
        places: set[int] = set()
        for found, write in rules.matches(passage):
            if found.start() in places:
                continue
            places.add(found.start())
            exceptions = [
                allowed
                for allowed in rules.allowed
                if fnmatchcase(path, allowed.path) and _covers(allowed.text, passage.text, found.span())
            ]
            used.update(exceptions)
            if not exceptions:
                line = passage.line + passage.text.count("\n", 0, found.start())
                yield Finding(path, line, " ".join(found[0].split())[:80], write)


def _covers(allowed: str, text: str, span: tuple[int, int]) -> bool:
    pattern = r"\s+".join(map(re.escape, allowed.split()))
    return any(each.start() < span[1] and span[0] < each.end() for each in re.finditer(pattern, text))


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, each) for each in patterns)


def tracked(root: Path, files: dict[str, list[str]]) -> list[str]:
    """Return the files to look at: those that git knows, or all of a tree without git."""
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(root), "ls-files", "-z"],  # noqa: S607 - wherever git is
        capture_output=True,
        check=False,
    )
    names = done.stdout.decode().split("\0") if not done.returncode else []
    if not any(names):
        names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]

    def wanted(name: str) -> bool:
        return _matches(name, files["check"]) and not _matches(name, files["leave"])

    return sorted(name for name in names if wanted(name) and (root / name).is_file())


def main(arguments: Sequence[str]) -> int:
    """Check; return the exit code: 0 if all is well, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Check the language of pages, messages and comments.")
    parser.add_argument("files", nargs="*", help="files to check (default: all of them)")
    parser.add_argument("--root", type=Path, default=ROOT, help="tree to check (default: %(default)s)")
    given = parser.parse_args(arguments)
    rules = Rules(tomllib.loads(LIST.read_text(encoding="utf-8")))
    names = given.files or tracked(given.root, rules.files)
    used: set[Allowed] = set()
    count = 0
    for name in names:
        for finding in check(name, (given.root / name).read_text(encoding="utf-8"), rules, used):
            count += 1
            sys.stderr.write(f"{finding}\n")
    stale = [] if given.files or given.root != ROOT else [each for each in rules.allowed if each not in used]
    for each in stale:
        sys.stderr.write(
            f"deploy/language.toml: the exception {each.text!r} in {each.path} is no longer needed\n"
        )
    if count or stale:
        sys.stderr.write(f"Language: {len(names)} files checked, {count + len(stale)} problem(s).\n")
        return 1
    sys.stdout.write(f"Language: {len(names)} files checked, no problems.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
