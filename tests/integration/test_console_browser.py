"""The console in a real browser: each page with and without scripts, narrow and wide, light and dark, by keyboard.

With CONSOLE_PICTURES set to a directory, each page's picture is put there: those in the documentation are made so.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.browser import PICTURES, chromium, mistakes, watched
from tests.support.cli import CommandLine
from tests.support.console import Console, running_console
from tests.support.worker_deployment import line, session, shared

from waypost.wire.encode import check_session_id

__all__ = ["line", "session", "shared"]

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]

TRIP = "trip-to-rome"
HOSTILE = "</script><img src=x onerror=alert(1)>\u202e"
WIDTHS = (320, 860, 1920)


@dataclass
class World:
    """A browser that was let into a console."""

    browser: Any
    console: Console
    line: CommandLine
    state: Any

    async def context(self, **options: Any) -> Any:
        made = await self.browser.new_context(
            base_url=self.console.address, storage_state=self.state, **options
        )
        return made

    async def run(self, *arguments: str, stdin: str = "") -> Any:
        """A command, while this loop goes on."""
        return await asyncio.to_thread(lambda: self.line.run(*arguments, stdin=stdin))

    async def create(self, session: str, *names: str, **data: Any) -> None:
        lines = [
            json.dumps({"session": session, "name": name, "data": data or {"at": name}}) for name in names
        ]
        ended = await self.run("publish", "--stdin", "--wait", "--timeout", "30", stdin="\n".join(lines))
        assert ended.code == 0, ended


@pytest.fixture(scope="module")
def console(shared: CommandLine) -> Iterator[Console]:
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
    with running_console(shared) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(shared: CommandLine, console: Console) -> AsyncIterator[World]:
    async with chromium() as browser:
        first = await browser.new_context()
        page = await first.new_page()
        await page.goto(console.link)
        await page.wait_for_url(f"{console.address}/")
        made = World(browser, console, shared, await first.storage_state())
        await first.close()
        await fill(made)
        yield made


async def fill(world: World) -> None:
    """A trip with something of everything: names, pins, removals, metadata, a rejected command."""
    stops = ("plan_made", "flight_found", "hotel_found", "plan_made", "hotel_booked")
    lines = [
        {
            "session": TRIP,
            "name": stops[n % 5],
            "data": {
                "stops": ["Florence", "Rome"][: 1 + n % 2],
                "budget": 900 - 7 * n,
                "hotel": {"name": "Santa Maria", "nights": n % 4},
            },
            "metadata": {"model": "small" if n % 3 else "large", "cost": round(0.01 * (n % 9), 2)},
        }
        for n in range(1, 25)
    ]
    await world.run("publish", "--stdin", "--wait", stdin="\n".join(map(json.dumps, lines)))
    for kind, number in (("pin", 4), ("delete", 7), ("delete", 8), ("pin", 99)):
        body = json.dumps({"checkpoint_id": f"{TRIP}:{number}"})
        await world.run("publish", TRIP, "--type", kind, "--body", body, "--wait")
    deep: Any = "the end"
    for _ in range(98):
        deep = [deep]
    await world.create(
        HOSTILE.replace("\u202e", "") + "/a?b#c%2F",
        HOSTILE,
        **{HOSTILE: HOSTILE, "nul": "a\0b", "deep": deep, "long": "x" * 880_000, "esc": "\x1b[31m"},
    )
    await world.create("support/4711", "question_asked", "answer_sent")


PAGES = {
    "sessions": "/",
    "session": f"/sessions/{TRIP}?a=23&b=24",
    "checkpoint": f"/sessions/{TRIP}/24",
    "log": f"/sessions/{TRIP}/24/log",
    "diff": f"/sessions/{TRIP}/diff?a=4&b=24",
    "rollback": f"/sessions/{TRIP}/rollback?checkpoint=20&discard_later=1",
    "policy": f"/sessions/{TRIP}/policy",
    "policy-preview": f"/sessions/{TRIP}/policy?max_checkpoints=5",
    "fork": f"/sessions/{TRIP}/fork?checkpoint=20",
    "verify": f"/sessions/{TRIP}/verify",
    "tail": "/tail",
    "rejected": "/rejected",
    "health": "/health",
    "help": "/help",
    "missing": "/sessions/nosuch",
}


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_fits_and_keeps_nobody_out(world: World, name: str) -> None:
    # The dark page is the same with other colors.
    for scheme, looked_at, rules in (("light", WIDTHS[0], None), ("dark", WIDTHS[-1], ["color-contrast"])):
        context = await world.context(color_scheme=scheme)
        one = await watched(context)
        await one.page.goto(PAGES[name])
        for width in WIDTHS:
            await one.page.set_viewport_size({"width": width, "height": 900})
            await one.page.locator("h1").wait_for()
            assert await one.page.evaluate("document.documentElement.scrollWidth") <= width, width
            if width == looked_at:
                assert await mistakes(one.page, rules) == [], (width, scheme)
            await one.picture(f"{name}-{width}-{scheme}")
        await one.clean()
        await context.close()


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_says_the_same_without_scripts(world: World, name: str) -> None:
    texts = []
    for scripts in (True, False):
        context = await world.context(java_script_enabled=scripts)
        page = await context.new_page()
        await page.goto(PAGES[name])
        texts.append(await page.locator("h1").inner_text())
        assert await page.locator("main table tbody tr").count() or name not in (
            "sessions",
            "session",
            "diff",
        )
        await context.close()
    assert texts[0] == texts[1]


async def test_the_first_minute_of_a_new_user(world: World, session: str) -> None:
    context = await world.context()
    one = await watched(context)
    page = one.page
    # Published elsewhere, it appears without a reload, in the list and on its page, even before the page listens.
    published = asyncio.Event()

    async def hold(stream: Any) -> None:
        await published.wait()
        await stream.continue_()

    await page.route("**/events", hold)
    await page.goto("/")
    await world.create(session, "plan_made", budget=100)
    published.set()
    await page.get_by_role("link", name=session, exact=True).click()
    await page.locator("#checkpoints").get_by_text("plan_made").wait_for()
    await world.create(session, "flight_found", budget=60)
    await page.locator("#checkpoints").get_by_text("flight_found").wait_for()
    # What changed.
    await page.reload()
    await page.get_by_role("button", name="Compare A and B").click()
    assert "/data/budget" in await page.locator(".diff").inner_text()
    # Back, after a preview.
    await page.get_by_role("link", name="Roll back to 1").click()
    assert "Removes 1 checkpoint (2). 1 is kept. Nothing has changed yet." in await page.inner_text("main")
    await page.get_by_role("button", name="Roll back", exact=True).click()
    assert "1 checkpoint removed." in await page.inner_text("main")
    await page.get_by_role("link", name="Back to the session").click()
    assert await page.locator("#checkpoints tbody tr").count() == 1
    # A rejected command, and another try.
    body = json.dumps({"checkpoint_id": f"{session}:3"})
    await world.run("publish", session, "--type", "pin", "--body", body, "--wait")
    await page.get_by_role("link", name="1 rejected").click()
    await page.locator("#rejected tbody a").first.click()
    await world.create(session, "hotel_found")
    await page.get_by_role("button", name="Send again").click()
    await page.get_by_role("heading", name="Accepted").wait_for()
    await one.clean()
    await context.close()


async def test_all_of_that_works_without_scripts(world: World, session: str) -> None:
    await world.create(session, "a", "b", "c")
    context = await world.context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto("/")
    await page.get_by_role("searchbox").fill(session)
    await page.get_by_role("button", name="Search").click()
    await page.get_by_role("link", name=session, exact=True).click()
    await page.get_by_role("button", name="Compare A and B").click()
    assert "Difference: 2 → 3" in await page.inner_text("main")
    await page.get_by_role("link", name="Fork…").click()
    await page.get_by_role("button", name="Fork").click()
    await page.get_by_role("link", name=f"Open {session}-retry").click()
    await page.get_by_role("link", name="Policy…").click()
    await page.get_by_label("Keep at most").fill("2")
    await page.get_by_role("button", name="Preview").click()
    assert "Removes 1 checkpoint (2). 2 are kept." in await page.inner_text("main")
    await page.get_by_role("button", name="Change it").click()
    assert "Configured" in await page.inner_text("main")
    await context.close()


async def test_two_tabs_race(world: World, session: str) -> None:
    await world.create(session, "a", "b")
    context = await world.context()
    one, other = await watched(context), await watched(context)
    for tab in (one, other):
        await tab.page.goto(f"/sessions/{session}/delete?checkpoint=1")
    await one.page.get_by_role("button", name="Delete").click()
    await one.page.get_by_role("heading", name="Deleted").wait_for()
    await other.page.get_by_role("button", name="Delete").click()
    assert "The session has changed, so nothing was published." in await other.page.inner_text("main")
    assert "This would be rejected. unknown-checkpoint" in await other.page.inner_text("main")
    await context.close()


async def test_the_keyboard_is_enough(world: World, session: str) -> None:
    await world.create(session, "a", "b", "c")
    context = await world.context()
    one = await watched(context)
    page = one.page
    await page.goto("/")
    await page.keyboard.press("/")
    await page.keyboard.type(session)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/?q=*")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/sessions/{session}")  # with its script: a heading is there before that
    for key in ("j", "b", "j", "j", "a", "d"):
        await page.keyboard.press(key)
    await page.get_by_text("Difference: 1 → 3").wait_for()
    await page.keyboard.press("?")
    await page.get_by_role("heading", name="Help").wait_for()
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
    await one.clean()
    await context.close()


async def test_what_was_chosen_stays_when_the_page_is_renewed(world: World, session: str) -> None:
    await world.create(session, "a", "b", "c")
    context = await world.context()
    one = await watched(context)
    page = one.page
    await page.goto(f"/sessions/{session}")
    for key in ("j", "b", "j"):
        await page.keyboard.press(key)
    for name in ("came_first", "came_second"):
        await world.create(session, name)
        await page.locator("#checkpoints").get_by_text(name).wait_for()
        # A was nobody's choice: it stays with the second newest. B was, and so was the row.
        assert await page.locator("tr.at td.n").first.inner_text() == "2"
        assert await page.locator("input[name=b]:checked").get_attribute("value") == "3"
    assert await page.locator("input[name=a]:checked").get_attribute("value") == "4"
    await page.keyboard.press("j")
    await page.keyboard.press("a")
    await page.keyboard.press("d")
    await page.get_by_text("Difference: 1 → 3").wait_for()
    await one.clean()
    await context.close()


async def test_what_an_agent_sent_is_shown_and_does_nothing(world: World) -> None:
    hostile = HOSTILE.replace("\u202e", "") + "/a?b#c%2F"
    check_session_id(hostile)
    context = await world.context()
    one = await watched(context)
    page = one.page
    await page.goto("/")
    await page.get_by_role("link", name=hostile).click()
    await page.get_by_role("heading", name=hostile).wait_for()
    await page.get_by_role("link", name=HOSTILE.replace("\u202e", "\\u202e")).first.click()
    await page.locator(".tree").first.wait_for()
    shown = await page.inner_text("main")
    assert '"a\\u0000b"' in shown
    assert "880,000 characters" in shown
    assert "\u202e" not in shown
    assert len(await page.content()) < 40_000
    # A hundred levels, a dozen at a time.
    while await (more := page.locator("a", has_text="deeper: ")).count():
        await page.goto(await more.first.get_attribute("href"))
    assert "the end" in await page.locator("main").text_content()
    for path in ("/tail", "/?q=%3Cscript%3E", "/rejected?session=%22%3E%3Cscript%3E"):
        await page.goto(path)
    await one.clean()
    await context.close()


async def test_the_tail_shows_results_as_they_come_and_pauses(world: World, session: str) -> None:
    context = await world.context()
    one = await watched(context)
    page = one.page
    await page.goto(f"/tail?session={session}")
    await world.create(session, "came_first")
    await page.locator("#tail").get_by_text("came_first").wait_for()
    await page.get_by_role("button", name="Pause").click()
    await world.create(session, "came_in_the_pause")
    await page.get_by_role("button", name="Continue").click()
    await page.locator("#tail").get_by_text("came_in_the_pause").wait_for()
    assert await page.locator("#tail tr").count() == 2
    await one.clean()
    await context.close()
