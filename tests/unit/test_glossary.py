"""docs/glossary.md: every word that has a fixed meaning, each in one or two sentences, and one name for one thing.

``make language`` rejects the synonyms of each word, which deploy/language.toml lists.
"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "glossary.md"
WORDS = (
    "Anchor Authority Batch Checkpoint Command Drain Epoch Erasure Expiry Fence Key_store Lag Number Offset Outbox "
    "Owner Partition Position Rejection Replay Result Retention_policy Session Session_key Skip Snapshot Spool Tenant "
    "Term Tombstone Topic Verify Wrapping_key"
)


def entries() -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {word: " ".join(text.split()) for word, text in zip(parts[::2], parts[1::2], strict=True)}


def test_it_defines_each_word_in_alphabetical_order() -> None:
    assert list(entries()) == [word.replace("_", " ") for word in WORDS.split()]
    assert list(entries()) == sorted(entries(), key=str.lower)


@pytest.mark.parametrize(("word", "text"), entries().items(), ids=entries())
def test_a_definition_is_one_or_two_sentences(word: str, text: str) -> None:
    assert text.endswith(".")
    assert 1 <= len(re.findall(r"[.!?](?:\s|$)", text)) <= 2
    # A definition that begins with its own word explains nothing.
    assert not text.lower().startswith((word.lower(), f"a {word.lower()} ", f"the {word.lower()} "))


def texts(*patterns: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for pattern in patterns for path in sorted(ROOT.glob(pattern))]


PAGES = [*texts("README.md", "docs/*.md", "docs/decisions/*.md")]
CODE = texts("schemas/waypost/**/*.py", "worker/waypost_worker/**/*.py")


@pytest.mark.parametrize("word", entries())
def test_an_entry_is_used_on_several_pages_and_in_code(word: str) -> None:
    stem = re.sub("[ey]$", "", word.lower())
    used = re.compile(rf"\b{stem}(?:e|y|s|es|ed|ies|ied|ing|ped|ping)?\b", re.IGNORECASE)
    assert sum(bool(used.search(page)) for page in PAGES if not page.startswith("# Glossary")) >= 3
    assert any(used.search(module) for module in CODE)


def test_the_language_check_rejects_synonyms_of_each_entry_and_knows_no_other() -> None:
    listed = tomllib.loads((ROOT / "deploy/language.toml").read_text(encoding="utf-8"))["glossary"]
    assert list(listed) == list(entries())
    words = {word.lower() for word in entries()}
    assert [synonym for synonyms in listed.values() for synonym in synonyms if synonym.lower() in words] == []


@pytest.mark.parametrize("name", ["Batch", "Checkpoint", "Owner", "Position", "Session", "Settings", "Term"])
def test_a_word_with_a_fixed_meaning_names_one_class(name: str) -> None:
    assert sum(len(re.findall(rf"^ *class _*{name}\b", module, re.MULTILINE)) for module in CODE) == 1


@pytest.mark.parametrize("name", ["Claim", "Place", "Plan", "Progress", "Snapshot", "Verdict"])
def test_a_word_that_would_be_ambiguous_names_no_class(name: str) -> None:
    assert not any(re.search(rf"^ *class _*{name}\b", module, re.MULTILINE) for module in CODE)
