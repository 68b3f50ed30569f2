"""A Kafka that lets nobody in without TLS, with an authorizer; certificates and logins made for this run.

Listeners: ``TLS`` (server certificate), ``MUTUAL`` (client certificate as well), ``LOGIN`` (TLS, then SCRAM or an
OAUTHBEARER token). The plain one is for brokers and for the tests' own administration: whoever comes by it is a
superuser, and so is ``root``. Tokens are unsigned, as Kafka's validator for tests takes them.
"""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from tests.support.servers import ServerDirectory, started
from tests.support.timeouts import PATIENCE

from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints

LISTENERS = {"TLS": "SSL", "MUTUAL": "SSL", "LOGIN": "SASL_SSL"}
MECHANISMS = {
    "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256,
    "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512,
}
_LOGIN_MODULES = {
    "scram-sha-256": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "scram-sha-512": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "oauthbearer": "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
}


@dataclass(frozen=True)
class SecureKafka:
    """The broker, and the files that clients need."""

    kafka: EmbeddedKafka
    directory: Path
    authority: trustme.CA
    admin: AdminClient

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    def endpoints(self, dsn: str) -> Endpoints:
        """The unprotected listener, with a database."""
        return Endpoints(self.kafka.bootstrap_servers, dsn)

    def certificate(self, name: str, authority: trustme.CA | None = None) -> Path:
        """A certificate for a client, with its key, in one file."""
        path = self.directory / f"{name}.pem"
        issued = (authority or self.authority).issue_cert(f"{name}.test", common_name=name)
        path.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        return path

    def user(self, name: str, password: str, mechanism: str = "SCRAM-SHA-512") -> None:
        """A user who may log in."""
        made = ScramCredentialInfo(MECHANISMS[mechanism], 4096)
        change = UserScramCredentialUpsertion(name, made, password.encode())
        for done in self.admin.alter_user_scram_credentials([change]).values():
            done.result(PATIENCE)

    def token(self, subject: str, seconds: float = 3600) -> Path:
        """A file with a token that is valid for so many seconds from now."""
        now = time.time()
        claims = {"sub": subject, "iat": now - 7200, "exp": now + seconds}
        path = self.directory / f"{subject}.token"
        path.write_text(f"{_encoded({'alg': 'none'})}.{_encoded(claims)}.\n")
        return path

    def login(self, name: str, password: str, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """Settings of a client that logs in with a password."""
        return {
            "WAYPOST_BOOTSTRAP_SERVERS": self.kafka.address("LOGIN"),
            "WAYPOST_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "WAYPOST_KAFKA_SSL_CA_FILE": str(self.ca_file),
            "WAYPOST_KAFKA_SASL_MECHANISM": mechanism,
            "WAYPOST_KAFKA_SASL_USERNAME": name,
            "WAYPOST_KAFKA_SASL_PASSWORD": password,
        }

    def bearer(self, token: Path) -> dict[str, str]:
        """Settings of a client that logs in with a token."""
        settings = self.login("", "", "OAUTHBEARER")
        del settings["WAYPOST_KAFKA_SASL_USERNAME"], settings["WAYPOST_KAFKA_SASL_PASSWORD"]
        return {**settings, "WAYPOST_KAFKA_SASL_TOKEN_FILE": str(token)}

    def tls(self, certificate: Path | None = None) -> dict[str, str]:
        """Settings of a client with TLS, and with a certificate of its own where one is given."""
        settings = {
            "WAYPOST_BOOTSTRAP_SERVERS": self.kafka.address("MUTUAL" if certificate else "TLS"),
            "WAYPOST_KAFKA_SECURITY_PROTOCOL": "SSL",
            "WAYPOST_KAFKA_SSL_CA_FILE": str(self.ca_file),
        }
        return settings | ({"WAYPOST_KAFKA_SSL_CERTIFICATE_FILE": str(certificate)} if certificate else {})


def _encoded(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _broker_properties(directory: Path, authority: trustme.CA) -> dict[str, str]:
    issued = authority.issue_cert("127.0.0.1")
    # Kafka reads PKCS #8 only.
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    store = directory / "broker.pem"
    store.write_bytes(written + b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(directory / "ca.pem"),
        "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/,DEFAULT",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.login.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        # A refused login is answered at once.
        "connection.failed.authentication.delay.ms": "0",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:root",
    }
    for mechanism, module in _LOGIN_MODULES.items():
        properties[f"listener.name.login.{mechanism}.sasl.jaas.config"] = module
    return properties


@pytest.fixture(scope="session")
def secure_kafka(
    tmp_path_factory: pytest.TempPathFactory, server_directory: ServerDirectory
) -> Iterator[SecureKafka]:
    directory = tmp_path_factory.mktemp("secure")
    authority = trustme.CA()
    (directory / "ca.pem").write_bytes(authority.cert_pem.bytes())
    kafka = EmbeddedKafka(
        server_directory("secure"),
        ClusterOptions(listeners=LISTENERS, properties=_broker_properties(directory, authority)),
    )
    with started(kafka):
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        made = SecureKafka(kafka, directory, authority, admin)
        for mechanism in MECHANISMS:
            made.user("root", "root-secret", mechanism)
        yield made
