"""The documentation as a site, built as ``make docs`` does, and what is on its pages.

Where its tools are not installed, tests are skipped on a developer's machine and fail in CI: ``make docs`` installs
them.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tests.support.servers import unavailable

ROOT: Final = Path(__file__).parents[2]
_ADDRESSES: Final = ("href", "src", "action", "data", "poster", "srcset")


@dataclass
class Page(HTMLParser):
    """A page of the site: what it loads, where its links lead, which anchors it has, and its blocks of code."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._depth = 0
        self.text = self.path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.anchors.add(str(found["id"]))
        for name in _ADDRESSES:
            address = found.get(name)
            if address and (tag == "a" or "canonical" in (found.get("rel") or "")):
                self.links.append(address)
            elif address:
                self.loaded.append(address)
        if tag == "pre":
            self._depth += 1
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._depth -= 1

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.blocks[-1] += data


@dataclass(frozen=True)
class Site:
    """A built site."""

    directory: Path

    @cached_property
    def pages(self) -> dict[Path, Page]:
        """All pages, by their path."""
        return {path: Page(path) for path in sorted(self.directory.rglob("*.html"))}

    def inner(self) -> Iterator[tuple[Page, str, Path, str]]:
        """Yield each link to somewhere on the site: its page, itself, the file and the anchor that it names."""
        for page in self.pages.values():
            for link in (*page.links, *page.loaded):
                parts = urlsplit(link)
                if not parts.scheme and not parts.netloc:
                    path = unquote(parts.path)
                    # Only the page for what is not found has addresses from the root on.
                    start = self.directory if path.startswith("/") else page.path.parent
                    target = (start / path.lstrip("/")).resolve() if path else page.path
                    target = target / "index.html" if target.is_dir() else target
                    yield page, link, target, unquote(parts.fragment)

    def outer(self) -> Iterator[tuple[Page, str]]:
        """Yield each link that leaves the site."""
        for page in self.pages.values():
            for link in page.links:
                if urlsplit(link).scheme or urlsplit(link).netloc:
                    yield page, link


def build_site(directory: Path) -> Site:
    """Build it; every warning is an error."""
    program = Path(f"{sys.prefix}-docs") / "bin" / "mkdocs"
    if not program.exists():
        unavailable("the tools of the documentation are not installed: make docs")
    # Not --quiet: it would keep warnings from being counted.
    built = subprocess.run(
        [str(program), "build", "--strict", "--site-dir", str(directory)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return Site(directory)
