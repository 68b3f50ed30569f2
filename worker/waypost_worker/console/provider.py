"""An OpenID Connect provider, asked by HTTP: where it is, its keys, and who came back with a code.

Owns discovery and the exchange of a code. ``id_token`` checks the token, ``identity`` has what its claims mean here.
"""

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx2
import orjson
from joserfc.jwk import KeySet

from waypost.errors import printable
from waypost_worker.console.id_token import (
    Expected,
    TokenError,
    UnknownKeyError,
    claims_of,
    keys_of,
)
from waypost_worker.console.identity import GroupRoles, Pending, PendingLogins, groups_in, is_safe_address
from waypost_worker.console.problems import Problem, ProblemError

_REQUEST_SECONDS: Final = 10.0
_FRESH_SECONDS: Final = 3600.0
_KEYS_AGAIN_SECONDS: Final = 10.0
_LARGEST_ANSWER: Final = 1024 * 1024
_NEEDED: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_OPTIONAL: Final = ("userinfo_endpoint", "end_session_endpoint")


@dataclass(frozen=True, slots=True)
class Registration:
    """The console as the provider knows it."""

    issuer: str
    client_id: str
    client_secret: str | None = None
    scopes: str = "openid profile email"
    groups_claim: str = "groups"

    @property
    def host(self) -> str:
        """The provider's name, for people."""
        return urlsplit(self.issuer).netloc


class Provider:
    """Asks a provider. ``client`` sends the requests; ``now`` is the time in seconds since 1970."""

    def __init__(
        self,
        registration: Registration,
        client: httpx2.AsyncClient,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.registration = registration
        self._client = client
        self._now = now
        self._metadata: dict[str, Any] = {}
        self._metadata_until = 0.0
        self._keys: KeySet | None = None
        self._keys_at = 0.0
        self._asking = asyncio.Lock()

    async def authorization_url(self, redirect_uri: str, pending: Pending) -> str:
        """Return where a browser goes to log in. Raise ProblemError if the provider does not say."""
        metadata = await self._discover()
        challenge = urlsafe_b64encode(sha256(pending.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.registration.client_id,
            "redirect_uri": redirect_uri,
            "scope": self.registration.scopes,
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return _with_query(metadata["authorization_endpoint"], query)

    def logout_url(self) -> str | None:
        """Return where a browser logs out at the provider as well; None if the provider named no such page."""
        endpoint = self._metadata.get("end_session_endpoint")
        return endpoint and _with_query(endpoint, {"client_id": self.registration.client_id})

    async def claims(
        self, answer: Mapping[str, str], redirect_uri: str, pending: Pending
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """Return what the provider says of the user who came back with an answer, and their groups.

        Raise ProblemError if it refused them, can't be asked, or said what can't be believed.
        """
        metadata = await self._discover()
        self._check_answer(answer, metadata)
        tokens = await self._exchange(metadata, answer["code"], redirect_uri, pending.verifier)
        claims = await self._verified(tokens["id_token"], pending.nonce)
        groups = groups_in(claims, self.registration.groups_claim)
        if groups is None and "userinfo_endpoint" in metadata:
            more = await self._userinfo(metadata["userinfo_endpoint"], tokens["access_token"], claims["sub"])
            groups = groups_in(more, self.registration.groups_claim)
            claims = {**more, **claims}
        return claims, groups or frozenset()

    def _check_answer(self, answer: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
        named = answer.get("iss")
        must = metadata.get("authorization_response_iss_parameter_supported") is True
        if named != self.registration.issuer and (must or named is not None):
            raise self._unbelievable("it came from another provider than the one that was asked")
        if "error" in answer:
            said = printable(answer.get("error_description") or answer["error"])[:300]
            raise ProblemError(
                Problem(
                    403,
                    "The provider did not log you in",
                    f"{self.registration.host} said: {said}. Nothing was changed.",
                    "Try again, or ask the operator of the provider.",
                    link=("/login", "Log in again"),
                )
            )
        if not answer.get("code"):
            raise self._unbelievable("it has no code")

    async def _discover(self) -> dict[str, Any]:
        async with self._asking:
            if self._now() >= self._metadata_until:
                address = f"{self.registration.issuer.rstrip('/')}/.well-known/openid-configuration"
                status, found = await self._ask("GET", address)
                if status != 200:
                    raise self._unusable(f"{address} answered with status {status}")
                self._metadata = self._checked(found)
                self._metadata_until = self._now() + _FRESH_SECONDS
            return self._metadata

    def _checked(self, found: dict[str, Any]) -> dict[str, Any]:
        if found.get("issuer") != self.registration.issuer:
            other = printable(str(found.get("issuer")))[:300]
            raise self._unusable(
                f"it calls itself {other}, and WAYPOST_CONSOLE_OIDC_ISSUER is {self.registration.issuer}"
            )
        for name in _NEEDED:
            if not is_safe_address(str(found.get(name, ""))):
                raise self._unusable(f"it has no {name} with https")
        # Optional endpoints are left out rather than used without https.
        return {
            name: value
            for name, value in found.items()
            if name not in _OPTIONAL or is_safe_address(str(value))
        }

    async def _exchange(
        self, metadata: Mapping[str, Any], code: str, redirect_uri: str, verifier: str
    ) -> dict[str, str]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        auth = self._authenticate(form, metadata.get("token_endpoint_auth_methods_supported"))
        status, found = await self._ask("POST", metadata["token_endpoint"], data=form, auth=auth)
        if status != 200:
            said = printable(str(found.get("error_description") or found.get("error") or status))[:300]
            raise self._unbelievable(f"{self.registration.host} did not take its code: {said}")
        if not all(isinstance(found.get(name), str) for name in ("id_token", "access_token")):
            raise self._unbelievable("it has no token of who you are")
        return found

    def _authenticate(self, form: dict[str, str], methods: Any) -> tuple[str, str] | None:
        """Return the login of a token request, or put it into its form."""
        client, secret = self.registration.client_id, self.registration.client_secret
        if secret is not None and (not isinstance(methods, list) or "client_secret_basic" in methods):
            # OAuth encodes both before HTTP does.
            return quote_plus(client), quote_plus(secret)
        form["client_id"] = client
        if secret is not None:
            form["client_secret"] = secret
        return None

    async def _verified(self, token: str, nonce: str) -> dict[str, Any]:
        expected = Expected(self.registration.issuer, self.registration.client_id, nonce)
        try:
            try:
                return claims_of(token, await self._key_set(), expected, self._now())
            except UnknownKeyError:
                # The provider may have changed its keys since it was asked for them.
                return claims_of(token, await self._key_set(again=True), expected, self._now())
        except TokenError as error:
            raise self._unbelievable(f"of its token, {printable(str(error))[:300]}") from None

    async def _key_set(self, again: bool = False) -> KeySet:
        metadata = await self._discover()
        async with self._asking:
            age = self._now() - self._keys_at
            if self._keys is None or age >= (_KEYS_AGAIN_SECONDS if again else _FRESH_SECONDS):
                status, found = await self._ask("GET", metadata["jwks_uri"])
                keys = found.get("keys")
                if status != 200 or not isinstance(keys, list):
                    raise self._unusable(f"{metadata['jwks_uri']} answered with status {status} and no keys")
                self._keys, self._keys_at = keys_of(keys), self._now()
            return self._keys

    async def _userinfo(self, address: str, access_token: str, subject: str) -> dict[str, Any]:
        status, found = await self._ask("GET", address, headers={"authorization": f"Bearer {access_token}"})
        if status != 200:
            raise self._unusable(f"{address} answered with status {status}")
        if found.get("sub") != subject:
            raise self._unbelievable("the provider spoke of two different people")
        return found

    async def _ask(self, method: str, address: str, **sent: Any) -> tuple[int, dict[str, Any]]:
        headers = {"accept": "application/json", **sent.pop("headers", {})}
        body = bytearray()
        try:
            async with (
                asyncio.timeout(_REQUEST_SECONDS),
                self._client.stream(method, address, headers=headers, **sent) as answer,
            ):
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > _LARGEST_ANSWER:
                        raise self._unusable(f"{address} sent more than {_LARGEST_ANSWER:,} bytes")
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
            said = printable(str(error)) or "no answer in time"
            raise ProblemError(
                Problem(
                    503,
                    "The login provider is not reachable",
                    f"{self.registration.host}: {said}. Nothing was changed. Users who are logged in stay logged in.",
                    "Try again when it is back.",
                    link=("/login", "Try again"),
                )
            ) from None
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = None
        return answer.status_code, found if isinstance(found, dict) else {}

    def _unbelievable(self, why: str) -> ProblemError:
        return ProblemError(
            Problem(
                403,
                "This login was not accepted",
                f"The answer of {self.registration.host} was not believed: {why}. Nothing was changed.",
                "Log in again. If that does not help, ask the operator of this console.",
                link=("/login", "Log in again"),
            )
        )

    def _unusable(self, why: str) -> ProblemError:
        return ProblemError(
            Problem(
                502,
                "The login provider can't be used",
                f"{self.registration.host}: {why}. Nothing was changed.",
                "The operator of this console can correct its settings; see docs/console.md.",
            )
        )


def _with_query(address: str, query: Mapping[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"


@dataclass
class OidcLogin:
    """Logins by a provider. ``user_claim`` names users, ``roles`` says what their groups may do."""

    provider: Provider
    roles: GroupRoles
    user_claim: str
    pending: PendingLogins = field(default_factory=PendingLogins)
