"""Hooks of MkDocs: what pages of the site have that their files in docs/ do not.

The commands' help and the fields of the contract are put into their pages. Links that leave docs/ lead to the
repository; one that leads nowhere fails the build.
"""

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("schemas", "worker", "deploy")]

import reference_cli  # noqa: E402
import reference_contract  # noqa: E402

log: Final = logging.getLogger("mkdocs.plugins.waypost")
#: A comment in a page, and what takes its place.
GENERATED: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "cli.md": ("<!-- Every command's --help comes here when the site is built. -->", reference_cli.sections),
    "contract.md": (
        "<!-- Every body's fields come here when the site is built. -->",
        reference_contract.sections,
    ),
}
_LINK: Final = re.compile(r"(?<=\]\()(\.\.?/[^)#\s]*)(?=[)#])")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Fill a page in, and point its links out of docs/ at the repository."""
    name = page.file.src_uri
    if name in GENERATED:
        mark, sections = GENERATED[name]
        if mark not in markdown:
            log.warning("%s lacks the line %r, so nothing was put into it", name, mark)
        markdown = markdown.replace(mark, sections())
    return outward(markdown, Path(config.docs_dir, name).parent, config.repo_url)


def outward(markdown: str, folder: Path, repository: str) -> str:
    """Make addresses of relative links that leave docs/; warn of one that leads nowhere."""
    docs = ROOT / "docs"

    def address(found: re.Match[str]) -> str:
        target = (folder / found[1]).resolve()
        if target.is_relative_to(docs):
            return found[1]
        if not target.exists():
            log.warning("A link in %s leads nowhere: %s", folder.relative_to(ROOT), found[1])
        kind = "tree" if target.is_dir() else "blob"
        return f"{repository.rstrip('/')}/{kind}/main/{target.relative_to(ROOT).as_posix()}"

    return _LINK.sub(address, markdown)
