"""Logging in at an OpenID Connect provider: tokens and providers that are not as they should be, and leaving."""

import socket
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.support.console import form_token_of
from tests.support.oidc_console import CONSOLE, Running, console, is_in, provider, refused, sent_back_from
from tests.support.oidc_provider import (
    Claims,
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
from waypost_worker.console.gates import gate_of
from waypost_worker.console.services import About, Services

__all__ = ["provider"]


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


async def test_an_unreachable_provider_is_asked_again_when_somebody_logs_in() -> None:
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
async def test_an_invalid_provider_is_not_used(
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


async def test_logging_out_ends_the_login_here_and_leads_to_the_providers(provider: OidcProvider) -> None:
    async with console(provider) as running, running.browser() as browser:
        await running.log_in(browser)
        token = form_token_of((await browser.get("/help")).text)
        gone = await browser.post("/logout", data={"form_token": token})
        assert gone.status_code == 401
        assert f'href="{provider.address}/logout?client_id=the-console"' in gone.text
        assert not await is_in(browser)


@pytest.mark.parametrize("address", [None, "http://provider.example/out", "javascript:alert(1)"])
async def test_a_page_of_a_provider_is_linked_only_if_it_is_safe(
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
