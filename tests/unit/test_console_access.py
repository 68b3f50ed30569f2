"""Who is let into the console, and which requests are answered."""

import ipaddress
import os

import pytest
from tests.support.cli import environment

from waypost_worker.config.settings import Settings, SettingsError
from waypost_worker.console.access import (
    SESSION_SECONDS,
    Links,
    Logins,
    Proxy,
    Role,
    User,
    allowed_hosts,
    is_loopback,
    is_own_origin,
)
from waypost_worker.console.gates import check_settings

LOCAL = User("local", Role.OPERATOR)


def test_a_link_lets_one_browser_in_and_the_next_link_is_another() -> None:
    links = Links()
    told: list[str] = []
    links.on_new = lambda: told.append(links.token)
    first = links.token
    assert not links.redeem("")
    assert not links.redeem(first + "x")
    assert told == []
    assert links.redeem(first)
    assert not links.redeem(first)
    assert told == [links.token]
    assert links.redeem(links.token)


def test_a_login_ends_by_itself_and_by_hand() -> None:
    logins = Logins()
    cookie = logins.let_in(LOCAL, 100)
    assert logins.user(cookie, 100 + SESSION_SECONDS - 1) == LOCAL
    assert logins.user(cookie, 100 + SESSION_SECONDS) is None
    assert logins.user(None, 100) is None
    assert logins.user(cookie + "x", 100) is None
    logins.end(cookie)
    assert logins.user(cookie, 101) is None


def test_form_tokens_of_two_browsers_and_of_two_consoles_differ() -> None:
    one, other = Logins(), Logins()
    assert one.form_token("a") == one.form_token("a")
    assert len({one.form_token("a"), one.form_token("b"), other.form_token("a")}) == 3


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        ("http://localhost:8650", True),
        ("https://localhost:8650", True),
        ("http://LOCALHOST:8650", True),
        ("http://localhost:8651", False),
        ("http://localhost", False),
        ("http://localhost:8650.evil.example", False),
        ("http://evil.example", False),
        ("http://user@localhost:8650", False),
        ("http://[", False),
        ("null", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_consoles_own_pages_send_forms(origin: str | None, own: bool) -> None:
    assert is_own_origin(origin, "localhost:8650") is own


def test_a_name_that_somebody_points_at_this_machine_is_not_answered() -> None:
    hosts = allowed_hosts("127.0.0.1", 8650, [])
    assert hosts == {"localhost:8650", "127.0.0.1:8650", "[::1]:8650"}
    assert allowed_hosts("0.0.0.0", 8650, ["Console.Example.org"]) == {"console.example.org"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "localhost.example.org"])
def test_what_others_can_reach_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


PROXY = Proxy((ipaddress.ip_network("10.0.0.0/8"),), "s" * 16, Role.VIEWER)
SAID = {"x-waypost-secret": "s" * 16, "x-waypost-user": "ann@example.org"}


def test_a_proxy_says_who_it_is_and_no_more_than_it_may() -> None:
    assert PROXY.user("10.1.2.3", SAID) == User("ann@example.org", Role.VIEWER)
    assert PROXY.user("10.1.2.3", {**SAID, "x-waypost-role": "operator"}) == User(
        "ann@example.org", Role.VIEWER
    )
    assert PROXY.user("10.1.2.3", {**SAID, "x-waypost-role": "Observer"}) == User(
        "ann@example.org", Role.OBSERVER
    )
    assert PROXY.user("10.1.2.3", {**SAID, "x-waypost-role": "root"}) == User(
        "ann@example.org", Role.OBSERVER
    )


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("11.1.2.3", SAID),
        (None, SAID),
        ("", SAID),
        ("10.1.2.3", {**SAID, "x-waypost-secret": "t" * 16}),
        ("10.1.2.3", {"x-waypost-user": "ann"}),
        ("10.1.2.3", {"x-waypost-secret": "s" * 16}),
        ("10.1.2.3", {**SAID, "x-waypost-user": " "}),
        ("10.1.2.3", {**SAID, "x-waypost-user": "a\u202eb"}),
        ("10.1.2.3", {**SAID, "x-waypost-user": "a" * 101}),
    ],
)
def test_requests_around_the_proxy_have_no_user(peer: str | None, headers: dict[str, str]) -> None:
    assert PROXY.user(peer, headers) is None


def test_the_source_of_a_users_commands_holds_no_odd_character() -> None:
    assert User("ann@example.org", Role.VIEWER).source == "/console/ann@example.org"
    assert User("../a b?", Role.VIEWER).source == "/console/..-a-b-"


OIDC = {
    "console_auth": "oidc",
    "console_oidc_issuer": "https://login.example.org",
    "console_oidc_client_id": "waypost",
    "console_oidc_viewers": "staff",
}


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"console_host": "0.0.0.0"}, "console_host"),
        ({"console_host": "console.example.org"}, "console_host"),
        ({"console_auth": "token"}, "console_token"),
        ({"console_auth": "proxy"}, "console_proxy_peers"),
        ({"console_auth": "proxy", "console_proxy_secret": "s" * 16}, "console_proxy_peers"),
        (
            {
                "console_auth": "proxy",
                "console_proxy_secret": "s" * 16,
                "console_proxy_peers": "10.0.0.0/8,x",
            },
            "console_proxy_peers",
        ),
        ({"console_auth": "token", "console_token": "t" * 16, "console_host": "0.0.0.0"}, "console_hosts"),
        ({"console_auth": "oidc"}, "console_oidc_issuer"),
        ({**OIDC, "console_oidc_issuer": "http://login.example.org"}, "console_oidc_issuer"),
        ({**OIDC, "console_oidc_issuer": "login.example.org"}, "console_oidc_issuer"),
        ({**OIDC, "console_oidc_issuer": "https://"}, "console_oidc_issuer"),
        ({**OIDC, "console_oidc_issuer": "https://login.example.org/?a=b"}, "console_oidc_issuer"),
        ({**OIDC, "console_oidc_client_id": ""}, "console_oidc_client_id"),
        ({**OIDC, "console_oidc_scopes": "email"}, "console_oidc_scopes"),
        ({**OIDC, "console_oidc_viewers": " , "}, "console_oidc_viewers"),
        ({**OIDC, "console_host": "0.0.0.0"}, "console_hosts"),
    ],
)
def test_settings_that_let_in_anybody_or_nobody_are_rejected(given: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as raised:
        check_settings(Settings(**given))
    assert "othing was started" in str(raised.value)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"console_auth": "token", "console_token": "t" * 16},
        {
            "console_auth": "token",
            "console_token": "t" * 16,
            "console_host": "0.0.0.0",
            "console_hosts": "c.example.org",
        },
        {"console_auth": "proxy", "console_proxy_secret": "s" * 16, "console_proxy_peers": "10.0.0.1, ::1"},
        OIDC,
        {**OIDC, "console_oidc_issuer": "http://127.0.0.1:8080/realms/a"},
    ],
)
def test_settings_that_say_who_may_come_in_are_accepted(given: dict[str, str]) -> None:
    check_settings(Settings(**given))
