"""The signed token by which an OpenID Connect provider says who somebody is: its signature and its claims. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import ClaimError, ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

LEEWAY_SECONDS: Final = 60
"""By how much the provider's clock may differ."""
# Signatures that only the provider can make: none with a shared key, and not "none".
_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
# Some providers put the chain of their certificates there.
_LARGEST_HEADER: Final = 16 * 1024


class TokenError(Exception):
    """A token that can't be believed; the message says why, for people."""


class UnknownKeyError(TokenError):
    """A token signed with a key that is not among those that the provider had when it was asked."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The issuer, the client, and the login that a token must name."""

    issuer: str
    client_id: str
    nonce: str


def keys_of(listed: Sequence[Any]) -> KeySet:
    """Return the keys of a provider that are of a known kind. Others are ignored."""
    keys: list[Key] = []
    for one in listed:
        try:
            keys.append(JWKRegistry.import_key(one))
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return KeySet(keys)


def claims_of(token: str, keys: KeySet, expected: Expected, now: float) -> dict[str, Any]:
    """Return the claims of a token. Raise TokenError if it is not what is expected, or not valid at that time.

    ``now`` is in seconds since 1970.
    """
    registry = JWSRegistry(algorithms=_ALGORITHMS, strict_check_header=False)
    registry.max_header_length = _LARGEST_HEADER
    try:
        claims = jwt.decode(token, keys, registry=registry).claims
    except InvalidKeyIdError:
        raise UnknownKeyError("it is signed with a key that the provider does not show") from None
    except (JoseError, ValueError, TypeError) as error:
        raise TokenError(f"its signature is not valid ({error})") from None
    _check(claims, expected, int(now))
    return claims


def _check(claims: dict[str, Any], expected: Expected, now: int) -> None:
    registered = jwt.JWTClaimsRegistry(
        now=now,
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": expected.issuer},
        sub={"essential": True},
        aud={"essential": True, "value": expected.client_id},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        registered.validate(claims)
    except ExpiredTokenError:
        raise TokenError(f"it expired {now - int(claims['exp'])} s ago; check both clocks") from None
    except ClaimError as error:
        raise TokenError(f"its claim {error.claim} is missing or not as expected") from None
    if claims.get("nonce") != expected.nonce:
        raise TokenError("it was made for another login")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else expected.client_id) != expected.client_id:
        raise TokenError("it was made for another application")
