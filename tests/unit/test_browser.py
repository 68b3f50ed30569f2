"""Tests that need a browser are skipped on a machine without one, and fail in CI."""

import shutil

import pytest
from tests.support.browser import chromium


@pytest.mark.parametrize(
    ("variable", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
async def test_without_a_browser(
    monkeypatch: pytest.MonkeyPatch, variable: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("CI", variable)
    with pytest.raises(outcome, match="apt-get install chromium"):
        async with chromium():
            pass
