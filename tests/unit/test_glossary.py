"""docs/glossary.md: every word that has a fixed meaning, each in one or two sentences."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "glossary.md"
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
