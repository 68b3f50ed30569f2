"""Logging in with OpenID Connect in a real browser: from a page of the console to a command in the log."""

import asyncio
from collections.abc import Iterator

import pytest
from tests.support.browser import chromium, mistakes, watched
from tests.support.cli import CommandLine
from tests.support.console import Console, running_console
from tests.support.oidc_provider import OidcProvider, running_provider
from tests.support.worker_deployment import create, line, session, shared

__all__ = ["line", "session", "shared"]

pytestmark = [pytest.mark.servers]


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with running_provider(OidcProvider(in_userinfo={"groups": ["ops"]})) as running:
        yield running


@pytest.fixture
def console(shared: CommandLine, provider: OidcProvider) -> Iterator[Console]:
    settings = {
        "WAYPOST_CONSOLE_AUTH": "oidc",
        "WAYPOST_CONSOLE_OIDC_ISSUER": provider.address,
        "WAYPOST_CONSOLE_OIDC_CLIENT_ID": provider.client_id,
        "WAYPOST_CONSOLE_OIDC_CLIENT_SECRET": provider.client_secret or "",
        "WAYPOST_CONSOLE_OIDC_OPERATORS": "ops",
    }
    with running_console(shared, settings) as running:
        yield running


async def test_somebody_logs_in_changes_a_session_and_is_named_in_the_log(
    console: Console, provider: OidcProvider, line: CommandLine, session: str
) -> None:
    await asyncio.to_thread(create, line, session, "a")
    # Another site for the browser than the provider's, whose address is a number.
    address = console.address.replace("127.0.0.1", "localhost")
    async with chromium() as browser:
        context = await browser.new_context(base_url=address)
        seen = await watched(context)
        page = seen.page
        await page.goto(f"/sessions/{session}/1")
        assert await mistakes(page) == []
        await page.get_by_role("link", name="Log in with").click()
        await page.wait_for_url(f"{address}/sessions/{session}/1")
        assert "ann@example.org, operator" in await page.inner_text("footer")
        await page.goto(f"/sessions/{session}/fork?checkpoint=1")
        await page.get_by_role("button", name="Fork").click()
        await page.get_by_role("heading", name="Forked").wait_for()
        await page.goto(f"/sessions/{session}-retry/1/log")
        assert "/console/ann@example.org" in await page.inner_text("main")
        await seen.clean()
        await page.get_by_role("button", name="Log out").click()
        out = page.get_by_role("link", name="Log out at the provider as well")
        assert await mistakes(page) == []
        await out.click()
        await page.wait_for_url(f"{provider.address}/logout?client_id={provider.client_id}")
        await page.goto(f"/sessions/{session}")
        assert await page.get_by_role("link", name="Log in with").is_visible()
