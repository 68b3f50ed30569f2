"""The documentation as a site: links, generated parts, and pages in a real browser, narrow and wide, light and dark.

With SITE_PICTURES set to a directory, a picture of each of these pages is put there.
"""

import json
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from tests.support.browser import chromium, watched
from tests.support.site import ROOT, Page, Site, build_site
from tests.unit.deploy_scripts import script

import waypost
from waypost.wire.event_types import COMMAND_TYPES, RESULT_TYPES

PICTURES = os.environ.get("SITE_PICTURES")
REPOSITORY = "https://github.com/waypost/waypost"
WIDTHS = (400, 1280)
# Of those that look different from others: the first page, one with outputs, tables, pictures, generated parts.
SHOWN = (
    "index.html",
    "tutorial.html",
    "tutorial-python.html",
    "install.html",
    "concepts.html",
    "cli.html",
    "contract.html",
    "api/publishing.html",
    "performance.html",
    "design.html",
    "troubleshooting.html",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return build_site(tmp_path_factory.mktemp("site") / "built")


def shown(page: Page, site: Site) -> str:
    return str(page.path.relative_to(site.directory))


def test_no_link_within_the_site_leads_nowhere(site: Site) -> None:
    dead = []
    count = 0
    for page, link, target, anchor in site.inner():
        count += 1
        there = site.pages.get(target)
        if not target.exists() or (anchor and there is not None and anchor not in there.anchors):
            dead.append(f"{shown(page, site)}: {link}")
    assert count > 1000
    assert dead == []


def test_links_to_the_repository_lead_to_files_that_exist_and_all_others_are_well_formed(site: Site) -> None:
    into, wrong = 0, []
    for page, link in site.outer():
        parts = urlsplit(link)
        if link.startswith(f"{REPOSITORY}/"):
            kind, branch, path = parts.path.removeprefix("/waypost/waypost/").split("/", 2)
            into += 1
            target = ROOT / path
            if branch != "main" or not (target.is_dir() if kind == "tree" else target.is_file()):
                wrong.append(f"{shown(page, site)}: {link}")
        elif parts.scheme not in ("https", "mailto") or not re.fullmatch(
            r"[\w.-]+\.\w+", parts.netloc or "a.b"
        ):
            wrong.append(f"{shown(page, site)}: {link}")
    assert into > 10
    assert wrong == []


def test_nothing_is_loaded_from_elsewhere(site: Site) -> None:
    loaded = [address for page in site.pages.values() for address in page.loaded]
    assert len(loaded) > 100
    assert [address for address in loaded if urlsplit(address).netloc] == []
    for sheet in site.directory.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text("utf-8")) == []


def test_a_page_has_every_command(site: Site) -> None:
    text = site.pages[site.directory / "cli.html"]
    usages = [block for block in text.blocks if block.startswith("Usage: waypost ")]
    commands = [" ".join(command) for command in script("reference_cli").commands()]
    assert len(commands) > 40
    assert [" ".join(usage.split()[2:4]).partition(" [")[0] for usage in usages]
    assert [
        command for command, usage in zip(commands, usages, strict=True) if f"waypost {command}" not in usage
    ] == []


def test_a_page_has_every_field_of_the_contract(site: Site) -> None:
    page = site.pages[site.directory / "contract.html"]
    for kind in (*COMMAND_TYPES, *RESULT_TYPES):
        assert f">{kind.value}<" in page.text
        schema = json.loads((ROOT / f"schemas/json/{kind.value}.schema.json").read_text("utf-8"))
        for name in schema["properties"]:
            assert f"<code>{name}</code>" in page.text


def test_pages_have_every_public_name_with_its_docstring(site: Site) -> None:
    anchors = set().union(*(page.anchors for page in site.pages.values()))
    assert {f"waypost.{name}" for name in waypost.__all__} <= anchors
    assert {"waypost.Publisher.create", "waypost.SyncPublisher.close", "waypost.Reader.barrier"} <= anchors
    text = site.pages[site.directory / "api" / "publishing.html"].text
    assert "Wait until Kafka has" in text
    assert "waypost.Publisher.room" not in anchors  # deprecated
    for page in site.pages.values():
        assert not re.search(r":(class|meth|func|mod):", page.text), page.path


def test_no_block_of_code_has_a_prompt(site: Site) -> None:
    blocks = [(shown(page, site), block) for page in site.pages.values() for block in page.blocks]
    assert len(blocks) > 150
    assert [(name, block) for name, block in blocks if re.search(r"^\s*(\$|>>>) ", block, re.MULTILINE)] == []


# In a browser.


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site.directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    async with chromium() as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
async def test_each_page_fits_and_asks_nobody_else(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    context = await browser.new_context(
        base_url=address, viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    too_wide = []
    for name in SHOWN:
        seen = await watched(context)
        page = seen.page
        await page.goto(f"/{name}", wait_until="networkidle")
        chosen = await page.evaluate("document.body.getAttribute('data-md-color-scheme')")
        assert chosen == {"light": "default", "dark": "slate"}[scheme]
        if await page.evaluate("document.scrollingElement.scrollWidth > innerWidth"):
            too_wide.append(name)
        assert seen.errors == []
        if PICTURES:
            file = f"{name.removesuffix('.html').replace('/', '-')}-{width}-{scheme}.png"
            await page.screenshot(path=Path(PICTURES) / file, full_page=name != "cli.html")
        await page.close()
    await context.close()
    assert too_wide == []
    assert len(asked) > len(SHOWN)
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


@pytest.mark.asyncio(loop_scope="module")
async def test_a_block_is_copied_as_it_must_be_typed(browser: Any, address: str) -> None:
    context = await browser.new_context(base_url=address, permissions=["clipboard-read", "clipboard-write"])
    page = await context.new_page()
    await page.goto("/tutorial.html", wait_until="networkidle")
    block = page.locator(".language-sh.highlight", has_text="waypost session list").first
    await block.hover()
    await block.locator(".md-clipboard, [data-md-type=copy]").first.click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines()[0].startswith("waypost session ")
    await context.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_search_finds_a_setting_and_a_class(browser: Any, address: str) -> None:
    context = await browser.new_context(base_url=address, viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    await page.goto("/index.html", wait_until="networkidle")
    for word, where in (("group_instance_id", "settings.html"), ("PublisherStats", "api/publishing.html")):
        query = page.locator("[data-md-component=search-query]")
        await query.fill("")
        await query.press_sequentially(word)
        await page.locator(f".md-search-result a[href*='{where}']").first.wait_for()
    await context.close()
