"""An OpenID Connect provider on loopback, whose answers a test can spoil.

It signs with ``cryptography`` alone, so that it shares no code with what checks its tokens.
"""

import json
import secrets
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from tests.support.timeouts import PATIENCE

Claims = dict[str, Any]


def encoded(content: bytes | Claims) -> str:
    """Base64 as tokens have it."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _number(value: int) -> str:
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@cache
def _rsa_key(kid: str, owner: str) -> rsa.RSAPrivateKey:
    """Making one takes a while, so tests share them."""
    return rsa.generate_private_key(65537, 2048)


class RsaKey:
    """Signs with RS256. Keys of other owners are others, whatever they are called."""

    alg = "RS256"

    def __init__(self, kid: str, owner: str = "provider") -> None:
        self.kid = kid
        self._key = _rsa_key(kid, owner)

    def sign(self, content: bytes) -> bytes:
        return self._key.sign(content, padding.PKCS1v15(), hashes.SHA256())

    def public(self) -> Claims:
        numbers = self._key.public_key().public_numbers()
        return {"kty": "RSA", "use": "sig", "kid": self.kid, "n": _number(numbers.n), "e": _number(numbers.e)}


class EcKey:
    """Signs with ES256."""

    alg = "ES256"

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, content: bytes) -> bytes:
        r, s = utils.decode_dss_signature(self._key.sign(content, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def public(self) -> Claims:
        numbers = self._key.public_key().public_numbers()
        point = {name: encoded(getattr(numbers, name).to_bytes(32, "big")) for name in ("x", "y")}
        return {"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid, **point}


Key = RsaKey | EcKey


def signed(claims: Claims, key: Key, **header: Any) -> str:
    """A token; ``header`` replaces parts of its header."""
    head = {"alg": key.alg, "typ": "JWT", "kid": key.kid, **header}
    content = f"{encoded(head)}.{encoded(claims)}"
    return f"{content}.{encoded(key.sign(content.encode()))}"


@dataclass
class OidcProvider:
    """What the provider knows, and how it is to answer."""

    address: str = ""
    client_id: str = "the-console"
    client_secret: str | None = "s3cret with & and :"
    person: Claims = field(
        default_factory=lambda: {"sub": "42", "email": "ann@example.org", "email_verified": True}
    )
    in_userinfo: Claims = field(default_factory=dict)
    keys: list[Key] = field(default_factory=lambda: [RsaKey("first")])
    metadata: Claims = field(default_factory=dict)
    """What its discovery document says otherwise."""
    token_of: Callable[[Claims, Key], str] = signed
    """Makes the token of the claims that are right."""
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """What a path answers instead."""
    silent: str = ""
    """The path that never answers."""
    asked: Counter[str] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _subjects: dict[str, Claims] = field(default_factory=dict)

    def document(self) -> Claims:
        pages = {
            "authorization_endpoint": "/authorize",
            "token_endpoint": "/token",
            "jwks_uri": "/keys",
            "userinfo_endpoint": "/userinfo",
            "end_session_endpoint": "/logout",
        }
        found: Claims = {
            "issuer": self.address,
            **{name: self.address + page for name, page in pages.items()},
        }
        return {name: value for name, value in {**found, **self.metadata}.items() if value is not None}

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser goes next: somebody logged in and agreed."""
        assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
        assert query["client_id"] == self.client_id
        assert len(query["nonce"]) >= 32
        assert len(query["state"]) >= 32
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state'], 'iss': self.address})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, Claims]:
        """Tokens for a code, once."""
        if not self._is_client(form, authorization):
            return 401, {"error": "invalid_client"}
        begun = self._codes.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "")
        if (
            begun is None
            or form.get("redirect_uri") != begun["redirect_uri"]
            or encoded(sha256(verifier.encode()).digest()) != begun["code_challenge"]
        ):
            return 400, {"error": "invalid_grant", "error_description": "The code is not valid."}
        access = secrets.token_urlsafe(16)
        now = int(time.time())
        self._subjects[access] = {"sub": self.person["sub"], **self.in_userinfo}
        claims = {
            "iss": self.address,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "nonce": begun["nonce"],
            **self.person,
        }
        token = self.token_of(claims, self.keys[-1])
        return 200, {"access_token": access, "token_type": "Bearer", "id_token": token}

    def userinfo(self, authorization: str) -> tuple[int, Claims]:
        found = self._subjects.get(authorization.removeprefix("Bearer "))
        return (401, {}) if found is None else (200, found)

    def _is_client(self, form: dict[str, str], authorization: str) -> bool:
        methods = self.metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self.client_secret is None or "client_secret_basic" not in methods:
            return (form.get("client_id"), form.get("client_secret")) == (self.client_id, self.client_secret)
        given = b64decode(authorization.removeprefix("Basic ")).decode().split(":")
        return [unquote_plus(each) for each in given] == [self.client_id, self.client_secret]


def _handler(provider: OidcProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            address = urlsplit(self.path)
            provider.asked[address.path] += 1
            authorization = self.headers.get("authorization", "")
            content = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            if address.path == provider.silent:
                provider.ended.wait(PATIENCE)
                return
            if address.path in provider.answers:
                self._send(*provider.answers[address.path])
                return
            match address.path:
                case "/.well-known/openid-configuration":
                    self._send_json(200, provider.document())
                case "/authorize":
                    self._redirect(provider.authorize(dict(parse_qsl(address.query))))
                case "/token":
                    self._send_json(*provider.token(dict(parse_qsl(content)), authorization))
                case "/keys":
                    self._send_json(200, {"keys": [key.public() for key in provider.keys]})
                case "/userinfo":
                    self._send_json(*provider.userinfo(authorization))
                case "/logout":
                    self._send(200, b"<title>Logged out</title>", "text/html")
                case _:
                    self._send(404, b"")

        def _send_json(self, status: int, content: Claims) -> None:
            self._send(status, json.dumps(content).encode(), "application/json")

        def _redirect(self, address: str) -> None:
            self.send_response(303)
            self.send_header("location", address)
            self.send_header("content-length", "0")
            self.end_headers()

        def _send(self, status: int, content: bytes, media_type: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


@contextmanager
def running_provider(provider: OidcProvider | None = None, port: int = 0) -> Iterator[OidcProvider]:
    """A provider that answers while the block runs."""
    made = provider or OidcProvider()
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(made))
    made.address = made.address or f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
