"""A console that people log in to at an OpenID Connect provider on loopback, and browsers that use it."""

import html
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from tests.support.oidc_provider import (
    OidcProvider,
    running_provider,
)

from waypost.model.tenants import TenantScope
from waypost_worker.config.settings import Settings
from waypost_worker.console.app import make_app
from waypost_worker.console.gates import check_settings, gate_of
from waypost_worker.console.guard import Gate
from waypost_worker.console.services import About, Services

CONSOLE = "http://127.0.0.1:8650"
ANN = "ann@example.org"
_AT_THE_PROVIDER = httpx.Client()


def sent_back_from(address: str) -> str:
    """Where the provider sends a browser that came there."""
    answer = _AT_THE_PROVIDER.get(address)
    assert answer.status_code == 303
    back: str = answer.headers["location"]
    return back


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with running_provider() as running:
        yield running


@asynccontextmanager
async def console(provider: OidcProvider, **settings: str) -> AsyncIterator["Running"]:
    """A console that asks a provider. Everybody whom it knows is an operator, if nothing else is said."""
    given = {
        "console_auth": "oidc",
        "console_oidc_issuer": provider.address,
        "console_oidc_client_id": provider.client_id,
        "console_oidc_operators": "*",
        **settings,
    }
    if provider.client_secret is not None:
        given["console_oidc_client_secret"] = provider.client_secret
    made = Settings(**cast(Any, given))
    check_settings(made)
    async with gate_of(made) as gate:
        gate.hosts = frozenset((CONSOLE.removeprefix("http://"), "console.example.org"))
        gate.cookie = "waypost_console_8650"
        about = SimpleNamespace(about=About("localhost:9092", "waypost", "0", None, TenantScope(None)))
        yield Running(provider, gate, make_app(cast(Services, about), gate))


class Running:
    """A console, and browsers that use it."""

    def __init__(self, provider: OidcProvider, gate: Gate, app: Any) -> None:
        self.provider = provider
        self.gate = gate
        self._app = app

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(
            transport=transport, base_url=CONSOLE, headers={"origin": CONSOLE}
        ) as made:
            yield made

    async def begin(self, browser: httpx.AsyncClient, page: str = "/help") -> str:
        """The address by which the provider sends the browser back."""
        out = await browser.get("/login", params={"page": page})
        assert out.status_code == 303, out.text
        return sent_back_from(out.headers["location"])

    async def log_in(self, browser: httpx.AsyncClient, page: str = "/help") -> httpx.Response:
        return await browser.get(await self.begin(browser, page))


async def is_in(browser: httpx.AsyncClient) -> bool:
    return (await browser.get("/help")).status_code == 200


async def refused(running: Running, status: int, *said: str) -> None:
    """A login ends with a page that says so, and lets nobody in."""
    async with running.browser() as browser:
        answer = await running.log_in(browser)
        text = html.unescape(answer.text)
        assert answer.status_code == status, text
        for part in said:
            assert part in text
        assert not await is_in(browser)
        assert running.gate.cookie not in dict(browser.cookies)
