"""From settings to who is let in. Settings that would let in anybody, or nobody, are errors."""

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from waypost.errors import InvalidArgumentError
from waypost.model.tenants import TenantScope
from waypost_worker.config.settings import Settings, SettingsError
from waypost_worker.console.access import Links, Proxy, Role, is_loopback
from waypost_worker.console.guard import Gate
from waypost_worker.console.identity import GroupRoles, groups_named, is_safe_address

if TYPE_CHECKING:
    from waypost_worker.console.provider import OidcLogin


def check_settings(settings: Settings) -> None:
    """Raise SettingsError unless the settings say who may come in."""
    host = settings.console_host
    match settings.console_auth:
        case "link" if not is_loopback(host):
            raise SettingsError(
                f"console_host: {host} can be reached from other machines, and console_auth=link lets nobody in there. "
                "Nothing was started. Set console_auth=token and console_token, or console_auth=oidc or proxy"
            )
        case "token" if settings.console_token is None:
            raise SettingsError(
                "console_token: console_auth=token needs it, 16 characters or more; nothing was started"
            )
        case "proxy":
            _proxy(settings)
        case "oidc":
            _check_oidc(settings)
    if not is_loopback(host) and not settings.console_hosts.strip():
        raise SettingsError(
            f"console_hosts: say by which names browsers reach the console at {host}, such as console.example.org; "
            "requests for others are rejected. Nothing was started"
        )
    try:
        TenantScope(settings.console_tenant)
    except InvalidArgumentError as error:
        raise SettingsError(f"console_tenant: {error}") from None


@asynccontextmanager
async def gate_of(settings: Settings) -> AsyncIterator[Gate]:
    """Yield the gate that checked settings ask for. Its names and its cookie's name are still to be set."""
    gate = Gate(frozenset(), "", role=Role[settings.console_role.upper()])
    match settings.console_auth:
        case "link":
            gate.links = Links()
        case "token":
            gate.token = _plain(settings.console_token)
        case "proxy":
            gate.proxy = _proxy(settings)
        case "oidc":
            async with _oidc(settings) as gate.oidc:
                yield gate
            return
    yield gate


def _proxy(settings: Settings) -> Proxy:
    secret = _plain(settings.console_proxy_secret)
    if secret is None or not settings.console_proxy_peers.strip():
        raise SettingsError(
            "console_proxy_peers: console_auth=proxy needs the proxy's addresses and console_proxy_secret; nothing was "
            "started"
        )
    peers = []
    for text in settings.console_proxy_peers.split(","):
        try:
            peers.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError as error:
            raise SettingsError(f"console_proxy_peers: {error}; nothing was started") from None
    return Proxy(tuple(peers), secret, Role[settings.console_role.upper()])


def _check_oidc(settings: Settings) -> None:
    issuer = settings.console_oidc_issuer
    if not issuer or not is_safe_address(issuer) or urlsplit(issuer).query or urlsplit(issuer).fragment:
        raise SettingsError(
            f"console_oidc_issuer: console_auth=oidc needs the provider's https address, not {issuer!r}; "
            "nothing was started"
        )
    if not settings.console_oidc_client_id:
        raise SettingsError(
            "console_oidc_client_id: console_auth=oidc needs the name that the provider gave the console; nothing was "
            "started"
        )
    if "openid" not in settings.console_oidc_scopes.split():
        raise SettingsError(
            "console_oidc_scopes: without openid, a provider does not say who logs in; nothing was started"
        )
    if not _roles(settings).let_somebody_in:
        raise SettingsError(
            "console_oidc_viewers: console_auth=oidc lets in members of groups, and no group is named. Nothing was "
            "started. Set console_oidc_operators, console_oidc_viewers or console_oidc_observers; * is everybody whom "
            "the provider knows"
        )


def _roles(settings: Settings) -> GroupRoles:
    return GroupRoles(
        {
            Role.OPERATOR: groups_named(settings.console_oidc_operators),
            Role.VIEWER: groups_named(settings.console_oidc_viewers),
            Role.OBSERVER: groups_named(settings.console_oidc_observers),
        }
    )


@asynccontextmanager
async def _oidc(settings: Settings) -> AsyncIterator["OidcLogin"]:
    # Here and not above: other ways in do without them, and start faster.
    try:
        import httpx2

        from waypost_worker.console.provider import OidcLogin, Provider, Registration
    except ImportError as error:
        raise SettingsError(
            f"console_auth: oidc needs {error.name}, which is not installed; nothing was started. Install it with: "
            "pip install 'waypost[oidc]'"
        ) from None

    registration = Registration(
        settings.console_oidc_issuer or "",
        settings.console_oidc_client_id or "",
        _plain(settings.console_oidc_client_secret),
        settings.console_oidc_scopes,
        settings.console_oidc_groups_claim,
    )
    # Redirects are not followed: an address that the provider's settings name is the one that is asked.
    async with httpx2.AsyncClient(follow_redirects=False) as client:
        yield OidcLogin(Provider(registration, client), _roles(settings), settings.console_oidc_user_claim)


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
