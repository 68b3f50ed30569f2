"""Logging in at an OpenID Connect provider: what lets somebody in, and everything that must not.

The provider is a server on loopback, and the console answers as it does when it runs.
"""

import html
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.support.oidc_provider import (
    Claims,
    EcKey,
    Key,
    OidcProvider,
    RsaKey,
    encoded,
    running_provider,
    signed,
)

from waypost.model.tenants import TenantScope
from waypost_worker.config.settings import Settings, SettingsError
from waypost_worker.console import provider as provider_module
from waypost_worker.console.app import make_app
from waypost_worker.console.gates import check_settings, gate_of
from waypost_worker.console.guard import Gate
from waypost_worker.console.identity import PENDING_SECONDS, PendingLogins
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


# What lets somebody in.


async def test_whoever_the_provider_knows_is_let_in_and_sees_the_page_that_was_asked_for(
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


async def test_keys_of_unknown_kinds_stand_beside_the_others(provider: OidcProvider) -> None:
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
async def test_whoever_is_in_no_group_with_a_role_is_not_let_in(provider: OidcProvider, groups: Any) -> None:
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


# Tokens.


def with_claims(**changed: Any) -> Callable[[Claims, Key], str]:
    """A token signed as it should be, with claims that are not as they should be. None leaves one out."""

    def token(claims: Claims, key: Key) -> str:
        found = {**claims, **changed}
        return signed({name: value for name, value in found.items() if value is not None}, key)

    return token


def unsigned(claims: Claims, _: Key) -> str:
    return f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(claims)}."


def none_with_a_signature(claims: Claims, key: Key) -> str:
    return signed(claims, key, alg="none")


def signed_with_the_public_key(claims: Claims, key: Key) -> str:
    import hmac

    content = f"{encoded({'alg': 'HS256', 'kid': key.kid})}.{encoded(claims)}"
    shared = encoded(key.public()).encode()
    return f"{content}.{encoded(hmac.digest(shared, content.encode(), 'sha256'))}"


def with_an_unknown_key(claims: Claims, _: Key) -> str:
    return signed(claims, RsaKey("unknown", "somebody else"))


def with_another_key_of_the_same_name(claims: Claims, key: Key) -> str:
    return signed(claims, RsaKey(key.kid, "somebody else"))


def with_its_own_key(claims: Claims, key: Key) -> str:
    own = RsaKey("own", "somebody else")
    return signed(claims, own, kid=key.kid, jwk=own.public(), jku="http://127.0.0.1:1/keys")


def with_claims_that_were_changed(claims: Claims, key: Key) -> str:
    head, _, signature = signed(claims, key).split(".")
    return f"{head}.{encoded({**claims, 'sub': 'root'})}.{signature}"


def of_another_kind(claims: Claims, key: Key) -> str:
    return signed(claims, key, alg="ES256")


def with_a_header_that_must_be_understood(claims: Claims, key: Key) -> str:
    return signed(claims, key, crit=["b64"], b64=False)


NOW = int(time.time())
HOUR = 3600


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (with_claims(nonce="0" * 64), "for another login"),
        (with_claims(nonce=None), "for another login"),
        (with_claims(nonce=["x"]), "for another login"),
        (with_claims(exp=NOW - 24 * HOUR), "expired 8"),
        (with_claims(exp=None), "claim exp is missing"),
        (with_claims(exp="never"), "claim exp"),
        (with_claims(exp=float("nan")), "claim exp"),
        (with_claims(iat=NOW + HOUR), "claim iat"),
        (with_claims(iat=None), "claim iat"),
        (with_claims(nbf=NOW + HOUR), "claim nbf"),
        (with_claims(aud="another-client"), "claim aud"),
        (with_claims(aud=[]), "claim aud"),
        (with_claims(aud=None), "claim aud"),
        (with_claims(aud=["the-console", "another-client"]), "for another application"),
        (with_claims(azp="another-client"), "for another application"),
        (with_claims(iss="https://evil.example"), "claim iss"),
        (with_claims(iss=None), "claim iss"),
        (with_claims(sub=None), "claim sub"),
        (with_claims(sub=""), "claim sub"),
        (with_claims(sub=7), "claim sub"),
        (unsigned, "signature is not valid"),
        (none_with_a_signature, "signature is not valid"),
        (signed_with_the_public_key, "signature is not valid"),
        (with_an_unknown_key, "a key that the provider does not show"),
        (with_another_key_of_the_same_name, "signature is not valid"),
        (with_its_own_key, "signature is not valid"),
        (with_claims_that_were_changed, "signature is not valid"),
        (of_another_kind, "of its token"),
        (with_a_header_that_must_be_understood, "signature is not valid"),
        (lambda *_: "", "of its token"),
        (lambda *_: "a.b", "of its token"),
        (lambda *_: "é.é.é", "of its token"),
        (lambda *_: f"{encoded(b'[]')}.{encoded(b'[]')}.x", "of its token"),
        (lambda _, key: signed(cast(Claims, ["x"]), key), "of its token"),
        (lambda *_: None, "no token of who you are"),
        (lambda *_: {"sub": "42"}, "no token of who you are"),
    ],
)
async def test_a_token_that_is_not_what_it_should_be_lets_nobody_in(
    provider: OidcProvider, token: Callable[[Claims, Key], str], said: str
) -> None:
    provider.token_of = token
    async with console(provider) as running:
        await refused(running, 403, "This login was not accepted", said)


@pytest.mark.parametrize("off", [-70, 70])
async def test_clocks_may_not_differ_by_more_than_a_minute(provider: OidcProvider, off: int) -> None:
    now = int(time.time()) + off
    provider.token_of = with_claims(iat=now, exp=now)
    async with console(provider) as running:
        await refused(running, 403, "expired 7" if off < 0 else "claim iat")


async def test_tokens_with_unknown_keys_do_not_have_the_keys_asked_for_each_time(
    provider: OidcProvider,
) -> None:
    provider.token_of = with_an_unknown_key
    async with console(provider) as running:
        for _ in range(3):
            await refused(running, 403, "a key that the provider does not show")
    assert provider.asked["/keys"] == 1


async def test_the_log_says_why_nobody_was_let_in_and_no_secret(
    provider: OidcProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.token_of = with_claims(aud="another-client")
    async with console(provider) as running:
        await refused(running, 403, "claim aud")
        provider.token_of = signed
    async with console(provider, console_oidc_operators="ops") as running:
        await refused(running, 403, "You may not use this console")
    said = [record.getMessage() for record in caplog.records if record.name == "waypost.console"]
    assert len(said) == 2
    assert "its claim aud is missing or not as expected" in said[0]
    assert said[1] == "42 has no group that may use the console"
    assert (provider.client_secret or "?") not in caplog.text


# Providers that are away or broken.


async def test_a_provider_that_is_away_is_asked_again_when_somebody_logs_in() -> None:
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        away = OidcProvider(address=f"http://127.0.0.1:{port}")
        async with console(away) as running, running.browser() as browser:
            answer = await browser.get("/login")
            assert answer.status_code == 503
            assert "The login provider is not reachable" in answer.text
            assert "Try again when it is back" in answer.text
            kept.close()
            with running_provider(away, port):
                await running.log_in(browser)
                assert await is_in(browser)
            # Who is logged in does not depend on it.
            assert await is_in(browser)
            async with running.browser() as other:
                assert (await running_callback(running, other)).status_code == 503


async def running_callback(running: Running, browser: httpx.AsyncClient) -> httpx.Response:
    """A browser comes back while the provider is away."""
    out = await browser.get("/login")
    state = parse_qs(urlsplit(out.headers["location"]).query)["state"][0]
    return await browser.get("/login/callback", params={"state": state, "code": "x"})


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/keys"])
async def test_a_provider_that_never_answers_is_given_up(
    provider: OidcProvider, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_module, "_REQUEST_SECONDS", 0.3)
    provider.silent = path
    async with console(provider) as running, running.browser() as browser:
        out = await browser.get("/login")
        if out.status_code == 303:
            out = await browser.get(sent_back_from(out.headers["location"]))
        assert out.status_code == 503
        assert "no answer in time" in out.text


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ((500, b"oops"), 502, "answered with status 500"),
        ((404, b"{}"), 502, "answered with status 404"),
        ((302, b""), 502, "answered with status 302"),
        ((200, b"<html>"), 502, "it calls itself None"),
        ((200, b"[]"), 502, "it calls itself None"),
        ((200, b'{"issuer": "https://evil.example"}'), 502, "it calls itself https://evil.example"),
        ((200, b"x" * 1_100_000), 502, "sent more than 1,048,576 bytes"),
    ],
)
async def test_what_is_no_provider_is_not_used(
    provider: OidcProvider, answer: tuple[int, bytes], status: int, said: str
) -> None:
    provider.answers["/.well-known/openid-configuration"] = answer
    async with console(provider) as running, running.browser() as browser:
        page = await browser.get("/login")
        assert (page.status_code, said in page.text) == (status, True), page.text


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
@pytest.mark.parametrize("address", [None, "http://provider.example/x", "javascript:alert(1)", "http://[", 7])
async def test_addresses_without_https_are_not_used(provider: OidcProvider, name: str, address: Any) -> None:
    provider.metadata[name] = address
    async with console(provider) as running, running.browser() as browser:
        page = await browser.get("/login")
        assert page.status_code == 502
        assert f"it has no {name} with https" in page.text
    assert set(provider.asked) == {"/.well-known/openid-configuration"}


@pytest.mark.parametrize("answer", [(500, b""), (200, b"{}"), (200, b'{"keys": {}}')])
async def test_a_provider_without_keys_lets_nobody_in(
    provider: OidcProvider, answer: tuple[int, bytes]
) -> None:
    provider.answers["/keys"] = answer
    async with console(provider) as running:
        await refused(running, 502, "and no keys")


@pytest.mark.parametrize("answer", [(500, b""), (200, b"<html>"), (401, b'{"error": "invalid_client"}')])
async def test_a_provider_that_gives_no_token_lets_nobody_in(
    provider: OidcProvider, answer: tuple[int, bytes]
) -> None:
    provider.answers["/token"] = answer
    async with console(provider) as running:
        await refused(running, 403, "This login was not accepted")


async def test_without_the_extra_it_says_what_to_install(
    provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(
        SettingsError, match=r"nothing was started\. Install it with: pip install 'waypost\[oidc\]'"
    ):
        async with console(provider):
            pass


# Leaving.


def form_token_of(page: str) -> str:
    return re.findall(r'name="form_token" value="([0-9a-f]*)"', page)[0]


async def test_logging_out_ends_the_login_here_and_leads_to_the_providers(provider: OidcProvider) -> None:
    async with console(provider) as running, running.browser() as browser:
        await running.log_in(browser)
        token = form_token_of((await browser.get("/help")).text)
        gone = await browser.post("/logout", data={"form_token": token})
        assert gone.status_code == 401
        assert f'href="{provider.address}/logout?client_id=the-console"' in gone.text
        assert not await is_in(browser)


@pytest.mark.parametrize("address", [None, "http://provider.example/out", "javascript:alert(1)"])
async def test_a_provider_without_a_safe_page_for_it_is_not_linked(
    provider: OidcProvider, address: str | None
) -> None:
    provider.metadata["end_session_endpoint"] = address
    async with console(provider) as running, running.browser() as browser:
        await running.log_in(browser)
        token = form_token_of((await browser.get("/help")).text)
        gone = await browser.post("/logout", data={"form_token": token})
        assert (gone.status_code, "Log out at the provider" in gone.text) == (401, False)


async def test_without_a_provider_there_is_nothing_to_come_back_to() -> None:
    made = Settings(console_auth="token", console_token=cast(Any, "t" * 16))
    async with gate_of(made) as gate:
        gate.hosts = frozenset((CONSOLE.removeprefix("http://"),))
        about = SimpleNamespace(about=About("localhost:9092", "waypost", "0", None, TenantScope(None)))
        running = Running(OidcProvider(), gate, make_app(cast(Services, about), gate))
        async with running.browser() as browser:
            assert (await browser.get("/login/callback?code=x&state=y")).status_code == 404
