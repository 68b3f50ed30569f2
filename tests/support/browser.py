"""A real browser for tests of the console: Debian's Chromium, or Chrome, driven by Playwright.

Where there is none, tests are skipped on a developer's machine and fail in CI: see ``deploy/install-test-packages``.
"""

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from tests.support.servers import unavailable

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: A directory that gets a picture of each page, for the documentation and for people to look at.
PICTURES: Final = os.environ.get("CONSOLE_PICTURES")
_WATCH: Final = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """A running browser."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        unavailable("no Chromium is here: apt-get install chromium")
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        unavailable("Playwright is not installed: make setup")
    async with async_playwright() as playwright:
        # Without a sandbox of its own it runs as root, as in CI. It sees nothing but this test's console.
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


def axe() -> str:
    """The source of axe-core, which looks for mistakes that keep people out."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")


async def mistakes(page: Any, rules: Sequence[str] | None = None) -> list[str]:
    """What axe-core finds on a page, in words, by all of its rules or by these."""
    if not await page.evaluate("typeof axe !== 'undefined'"):
        await page.evaluate(axe())
    found = await page.evaluate(
        "rules => axe.run(rules ? { runOnly: { type: 'rule', values: rules } } : {})", rules
    )
    return [
        f"{one['id']}: {one['help']}: {node['target']}: {node['html'][:200]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


class Watched:
    """A page, and what went wrong on it: errors of scripts, and what the security policy kept out."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._console)
        page.on("dialog", lambda dialog: self.errors.append(f"a dialog: {dialog.message}"))

    def _console(self, message: Any) -> None:
        # The browser reports each answer of 400 and above, which some tests ask for.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    async def clean(self) -> None:
        """Fail if anything went wrong."""
        assert await self.page.evaluate("window.violations") == []
        assert self.errors == []

    async def picture(self, name: str) -> None:
        """Take a picture of the whole page, if somebody wants pictures."""
        if PICTURES:
            await self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


async def watched(context: Any) -> Watched:
    """A new page that is watched."""
    page = await context.new_page()
    page.set_default_timeout(30_000)
    await page.add_init_script(_WATCH)
    return Watched(page)
