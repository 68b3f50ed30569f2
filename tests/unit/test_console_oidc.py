"""Logging in at an OpenID Connect provider: what lets somebody in, and everything that must not.

The provider is a server on loopback, and the console answers as it does when it runs.
"""

import html
import re
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.support.oidc_console import (
    ANN,
    CONSOLE,
    Running,
    console,
    is_in,
    provider,
    refused,
    sent_back_from,
)
from tests.support.oidc_provider import (
    Claims,
    EcKey,
    Key,
    OidcProvider,
    RsaKey,
    running_provider,
    signed,
)

from waypost_worker.console.identity import PENDING_SECONDS, PendingLogins

__all__ = ["provider"]


# What lets somebody in.


async def test_users_of_the_provider_get_in_and_see_the_page_that_they_asked_for(
    provider: OidcProvider,
) -> None:
    async with console(provider) as running, running.browser() as browser:
        asked = await browser.get("/help?x=1&y=%2F")
        assert asked.status_code == 401
        assert f"Log in with {urlsplit(provider.address).netloc}" in asked.text
        link = html.unescape(re.findall(r'class="btn" href="([^"]+)"', asked.text)[0])
        back = sent_back_from((await browser.get(link)).headers["location"])
        assert back.startswith(f"{CONSOLE}/login/callback?")
        welcome = await browser.get(back)
        assert 'content="0; url=/help?x=1&amp;y=%2F"' in welcome.text
        page = await browser.get("/help")
        assert f"{ANN}, operator" in page.text
        assert {cookie.name for cookie in browser.cookies.jar} == {running.gate.cookie}


async def test_what_goes_out_is_of_this_login_alone(provider: OidcProvider) -> None:
    async with console(provider) as running, running.browser() as browser:
        queries = []
        for _ in range(2):
            out = await browser.get("/login")
            assert out.headers["location"].startswith(f"{provider.address}/authorize?")
            queries.append(parse_qs(urlsplit(out.headers["location"]).query))
            cookie = out.headers["set-cookie"]
            assert {"HttpOnly", "SameSite=lax", "Path=/login", "Max-Age=600"} <= set(cookie.split("; "))
        for name in ("state", "nonce", "code_challenge"):
            assert queries[0][name] != queries[1][name]
        assert queries[0]["scope"] == ["openid profile email"]
        assert queries[0]["redirect_uri"] == [f"{CONSOLE}/login/callback"]


async def test_behind_a_proxy_with_tls_the_way_back_is_its_name_and_cookies_are_for_https(
    provider: OidcProvider,
) -> None:
    async with console(provider) as running, running.browser() as browser:
        out = await browser.get(
            "/login", headers={"host": "console.example.org", "x-forwarded-proto": "https"}
        )
        query = parse_qs(urlsplit(out.headers["location"]).query)
        assert query["redirect_uri"] == ["https://console.example.org/login/callback"]
        assert "Secure" in out.headers["set-cookie"].split("; ")


@pytest.mark.parametrize(
    "page", ["//evil.example", "/\\evil.example", "https://evil.example", "é", "/\t/x", ""]
)
async def test_a_login_does_not_lead_out_of_the_console(provider: OidcProvider, page: str) -> None:
    async with console(provider) as running, running.browser() as browser:
        assert 'content="0; url=/"' in (await running.log_in(browser, page)).text


async def test_keys_may_change_while_the_console_runs(provider: OidcProvider) -> None:
    async with console(provider) as running:
        for key in (None, EcKey("second"), RsaKey("third")):
            provider.keys = provider.keys if key is None else [*provider.keys, key]
            clock_past_the_pause(running)
            async with running.browser() as browser:
                await running.log_in(browser)
                assert await is_in(browser)
        assert provider.asked["/keys"] == 3
        assert provider.asked["/.well-known/openid-configuration"] == 1


def clock_past_the_pause(running: Running) -> None:
    """Let the keys be asked for again: not more often than every few seconds."""
    oidc = running.gate.oidc
    assert oidc is not None
    oidc.provider._keys_at -= 11


async def test_keys_of_unknown_kinds_do_not_disturb_the_others(provider: OidcProvider) -> None:
    listed = [{"kty": "new"}, {"kty": "EC", "crv": "?"}, {"kty": "RSA", "n": 1}, 7, provider.keys[0].public()]
    provider.answers["/keys"] = 200, str(listed).replace("'", '"').encode().join((b'{"keys": ', b"}"))
    async with console(provider) as running, running.browser() as browser:
        await running.log_in(browser)
        assert await is_in(browser)


@pytest.mark.parametrize(
    ("secret", "methods"),
    [
        (None, None),
        ("a b&c:d", ["client_secret_basic", "client_secret_post"]),
        ("a b&c:d", ["client_secret_post"]),
    ],
)
async def test_the_console_shows_its_secret_as_the_provider_wants_it(
    secret: str | None, methods: list[str] | None
) -> None:
    told = {} if methods is None else {"token_endpoint_auth_methods_supported": methods}
    with running_provider(OidcProvider(client_secret=secret, metadata=told)) as provider:
        async with console(provider) as running, running.browser() as browser:
            await running.log_in(browser)
            assert await is_in(browser)


@pytest.mark.parametrize("off", [-50, 50])
async def test_clocks_may_differ_by_a_minute(provider: OidcProvider, off: int) -> None:
    def of_another_clock(claims: Claims, key: Key) -> str:
        now = int(time.time()) + off
        return signed({**claims, "iat": now, "nbf": now, "exp": now + 1}, key)

    provider.token_of = of_another_clock
    async with console(provider) as running, running.browser() as browser:
        await running.log_in(browser)
        assert await is_in(browser)


# Roles.


@pytest.mark.parametrize(
    ("settings", "groups", "role"),
    [
        ({"console_oidc_operators": "ops"}, ["ops", "staff"], "operator"),
        ({"console_oidc_operators": "ops", "console_oidc_viewers": "staff"}, ["staff"], "viewer"),
        ({"console_oidc_operators": "ops", "console_oidc_viewers": "*"}, [], "viewer"),
        ({"console_oidc_operators": "ops", "console_oidc_viewers": "*"}, ["ops"], "operator"),
        ({"console_oidc_operators": "", "console_oidc_observers": "a, b"}, "b", "observer"),
        ({"console_oidc_operators": '"CN=ops,DC=example", x'}, ["CN=ops,DC=example"], "operator"),
        ({"console_oidc_operators": "ops", "console_role": "viewer"}, ["ops"], "viewer"),
    ],
)
async def test_groups_have_roles_and_the_highest_counts(
    provider: OidcProvider, settings: dict[str, str], groups: list[str] | str, role: str
) -> None:
    provider.person["groups"] = groups
    async with console(provider, **settings) as running, running.browser() as browser:
        await running.log_in(browser)
        assert f"{ANN}, {role}" in (await browser.get("/help")).text


@pytest.mark.parametrize(
    "groups", [None, [], ["OPS"], ["op"], [7, {"ops": 1}], "ops,x", {"ops": 1}, "*", ["*"]]
)
async def test_users_in_no_group_with_a_role_are_not_let_in(provider: OidcProvider, groups: Any) -> None:
    provider.person["groups"] = groups
    async with console(provider, console_oidc_operators="ops") as running:
        await refused(running, 403, "You may not use this console", "knows you as 42", "/logout?client_id=")


async def test_groups_are_where_the_provider_has_them(provider: OidcProvider) -> None:
    provider.person["realm_access"] = {"roles": ["ops"]}
    provider.person["https://example.org/groups"] = ["far"]
    for claim, group in (("realm_access.roles", "ops"), ("https://example.org/groups", "far")):
        given = {"console_oidc_groups_claim": claim, "console_oidc_operators": group}
        async with console(provider, **given) as running, running.browser() as browser:
            await running.log_in(browser)
            assert await is_in(browser)


async def test_groups_that_are_not_in_the_token_are_asked_for(provider: OidcProvider) -> None:
    provider.in_userinfo = {"groups": ["ops"], "email": "other@example.org"}
    async with console(provider, console_oidc_operators="ops") as running:
        async with running.browser() as browser:
            await running.log_in(browser)
            assert f"{ANN}, operator" in (await browser.get("/help")).text
        provider.in_userinfo["sub"] = "43"
        await refused(running, 403, "two different people")
        provider.answers["/userinfo"] = 500, b"no"
        await refused(running, 502, "answered with status 500")


@pytest.mark.parametrize(
    ("person", "claim", "name"),
    [
        ({"email": ANN, "email_verified": False}, "email", "42"),
        ({"email": ANN}, "email", "42"),
        ({"email": ANN, "email_verified": "true"}, "email", "42"),
        ({"email": "a\u202eb", "email_verified": True}, "email", "42"),
        ({"email": "a" * 101, "email_verified": True}, "email", "42"),
        ({"preferred_username": "ann"}, "preferred_username", "ann"),
        ({"profile": {"name": "ann"}}, "profile.name", "ann"),
        ({}, "preferred_username", "42"),
        ({"preferred_username": ["ann"]}, "preferred_username", "42"),
    ],
)
async def test_somebodys_name_is_one_that_nobody_else_can_take(person: Claims, claim: str, name: str) -> None:
    with running_provider(OidcProvider(person={"sub": "42", **person})) as provider:
        async with (
            console(provider, console_oidc_user_claim=claim) as running,
            running.browser() as browser,
        ):
            await running.log_in(browser)
            assert f"<span>{name}, operator</span>" in (await browser.get("/help")).text


# Answers that are not of a login of this browser.


@pytest.mark.parametrize("state", ["", "0" * 64, "x", "é"])
async def test_a_forged_state_lets_nobody_in(provider: OidcProvider, state: str) -> None:
    async with console(provider) as running, running.browser() as browser:
        back = httpx.URL(await running.begin(browser)).copy_merge_params({"state": state})
        answer = await browser.get(back)
        assert (answer.status_code, await is_in(browser)) == (400, False)
        assert "This login was not begun here" in answer.text
    assert provider.asked["/token"] == 0


async def test_the_answer_to_another_browsers_login_lets_nobody_in(provider: OidcProvider) -> None:
    async with console(provider) as running, running.browser() as one, running.browser() as other:
        back = await running.begin(one)
        assert (await other.get(back)).status_code == 400
        await running.begin(other)
        assert (await other.get(back)).status_code == 400
        assert not await is_in(other)
        assert (await one.get(back)).status_code == 200


async def test_an_answer_counts_once_even_with_its_cookie(provider: OidcProvider) -> None:
    async with console(provider) as running, running.browser() as browser:
        back = await running.begin(browser)
        kept = browser.cookies.get(f"{running.gate.cookie}_login")
        assert (await browser.get(back)).status_code == 200
        headers = {"cookie": f"{running.gate.cookie}_login={kept}"}
        async with running.browser() as other:
            again = await other.get(back, headers=headers)
            assert (again.status_code, await is_in(other)) == (400, False)
    assert provider.asked["/token"] == 1


async def test_a_code_that_was_used_lets_nobody_in(provider: OidcProvider) -> None:
    async with console(provider) as running:
        async with running.browser() as browser:
            back = httpx.URL(await running.begin(browser))
            assert (await browser.get(back)).status_code == 200
        async with running.browser() as thief:
            own = httpx.URL(await running.begin(thief))
            answer = await thief.get(own.copy_merge_params({"code": back.params["code"]}))
            assert (answer.status_code, await is_in(thief)) == (403, False)
            assert "did not take its code: The code is not valid." in answer.text


async def test_a_code_of_another_browsers_login_lets_nobody_in(provider: OidcProvider) -> None:
    async with console(provider) as running, running.browser() as victim, running.browser() as thief:
        stolen = httpx.URL(await running.begin(victim)).params["code"]
        own = httpx.URL(await running.begin(thief))
        answer = await thief.get(own.copy_merge_params({"code": stolen}))
        assert (answer.status_code, await is_in(thief)) == (403, False)


def test_a_login_that_takes_too_long_ends_and_so_does_one_of_another_process() -> None:
    logins = PendingLogins()
    cookie, begun = logins.begin("/help", 100)
    assert logins.end(cookie, begun.state, 100 + PENDING_SECONDS) is None
    assert PendingLogins().end(cookie, begun.state, 101) is None
    assert logins.end(cookie, begun.state, 99 + PENDING_SECONDS) == begun


@pytest.mark.parametrize("cookie", ["", "x", "x.y", "é.é", "=.=", "MSAyIDM=.", "!!!!.00"])
async def test_a_forged_cookie_lets_nobody_in(provider: OidcProvider, cookie: str) -> None:
    async with console(provider) as running, running.browser() as browser:
        back = await running.begin(browser)
        forged = f"{running.gate.cookie}_login={cookie}".encode()
        async with running.browser() as other:
            assert (await other.get(back, headers={"cookie": forged})).status_code == 400


async def test_the_answer_of_another_provider_is_not_believed(provider: OidcProvider) -> None:
    async with console(provider) as running, running.browser() as browser:
        back = httpx.URL(await running.begin(browser)).copy_merge_params({"iss": "https://evil.example"})
        answer = await browser.get(back)
        assert (answer.status_code, await is_in(browser)) == (403, False)
        assert "another provider" in answer.text
        provider.metadata["authorization_response_iss_parameter_supported"] = True
    async with console(provider) as running, running.browser() as browser:
        back = httpx.URL(await running.begin(browser)).copy_remove_param("iss")
        assert (await browser.get(back)).status_code == 403


async def test_what_the_provider_says_against_a_login_is_shown_and_does_nothing(
    provider: OidcProvider,
) -> None:
    async with console(provider) as running, running.browser() as browser:
        back = httpx.URL(await running.begin(browser)).copy_remove_param("code")
        said = {"error": "access_denied", "error_description": "<script>alert(1)</script>\u202e no"}
        answer = await browser.get(back.copy_merge_params(said))
        assert (answer.status_code, await is_in(browser)) == (403, False)
        assert "The provider did not log you in" in answer.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e no" in answer.text
        assert "<script>alert" not in answer.text


async def test_an_answer_without_a_code_lets_nobody_in(provider: OidcProvider) -> None:
    async with console(provider) as running, running.browser() as browser:
        back = httpx.URL(await running.begin(browser)).copy_remove_param("code")
        assert (await browser.get(back)).status_code == 403
