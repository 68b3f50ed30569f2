"""The page about hostile record batches lists what the tests know, and what aiokafka and our reader make of it."""

from pathlib import Path

from tests.support.variants_page import table

PAGE = Path(__file__).parents[2] / "docs/measured/batch-variants.md"


def test_the_page_has_the_table() -> None:
    # python -m tests.support.variants_page prints it.
    assert table() in PAGE.read_text(encoding="utf-8")
