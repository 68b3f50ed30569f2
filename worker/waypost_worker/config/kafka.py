"""From settings to what Kafka clients of the service are made with: TLS, client certificates, logins.

Knows settings and how aiokafka names things; asks no broker. What can't be used is a SettingsError that names the
setting and says no secret.
"""

import ssl
from collections.abc import Mapping
from typing import Any

from waypost.kafka.token_file import TokenFile
from waypost_worker.config.settings import Settings, SettingsError
from waypost_worker.kafka.connection import Connection


def kafka_connection(settings: Settings, client_id: str = "waypost-worker") -> Connection:
    """How to reach the cluster; SettingsError if settings contradict each other or files can't be used."""
    return Connection(
        settings.bootstrap_servers,
        request_timeout=settings.request_timeout,
        client_id=client_id,
        security=kafka_security(settings),
    )


def kafka_security(settings: Settings) -> Mapping[str, Any]:
    """The options of any aiokafka client that say how it is protected; SettingsError as above."""
    protocol = settings.kafka_security_protocol
    with_tls, with_login = protocol.endswith("SSL"), protocol.startswith("SASL")
    for family, used in (("kafka_ssl_", with_tls), ("kafka_sasl_", with_login)):
        unused = [name for name in sorted(settings.model_fields_set) if name.startswith(family)]
        if unused and not used and getattr(settings, unused[0]) is not None:
            raise SettingsError(
                f"{unused[0]} is set, but kafka_security_protocol={protocol} makes no use of it; "
                f"take {'SASL_SSL' if with_tls or with_login or family == 'kafka_sasl_' else 'SSL'}"
            )
    if protocol == "PLAINTEXT":
        return {}
    return {
        "security_protocol": protocol,
        **({"ssl_context": _context(settings)} if with_tls else {}),
        **(_login(settings) if with_login else {}),
    }


def _context(settings: Settings) -> ssl.SSLContext:
    authority = settings.kafka_ssl_ca_file
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ValueError) as error:
        raise _unusable("kafka_ssl_ca_file", authority, error, "no PEM certificates") from None
    certificate, key = settings.kafka_ssl_certificate_file, settings.kafka_ssl_key_file
    if certificate is None:
        if key is not None:
            raise SettingsError("kafka_ssl_key_file needs kafka_ssl_certificate_file beside it")
        return context
    secret = settings.kafka_ssl_key_password
    password = "" if secret is None else secret.get_secret_value()
    try:
        # A function, so that nobody is asked at the terminal for the password of an encrypted key.
        context.load_cert_chain(certificate, key, lambda: password)
    except (OSError, ValueError) as error:
        why = "no PEM certificate and the key that belongs to it, or the key's password is missing or wrong"
        raise _unusable(
            "kafka_ssl_certificate_file", f"{certificate} ({key or certificate})", error, why
        ) from None
    return context


def _unusable(setting: str, path: str | None, error: Exception, otherwise: str) -> SettingsError:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return SettingsError(f"{setting} {path} can't be read: {error.strerror}")
    return SettingsError(f"{setting} {path}: {otherwise}")


def _login(settings: Settings) -> dict[str, Any]:
    mechanism = settings.kafka_sasl_mechanism
    if mechanism is None:
        raise SettingsError(
            f"kafka_security_protocol={settings.kafka_security_protocol} needs kafka_sasl_mechanism beside it"
        )
    if mechanism == "OAUTHBEARER":
        if settings.kafka_sasl_token_file is None:
            raise SettingsError("kafka_sasl_mechanism=OAUTHBEARER needs kafka_sasl_token_file beside it")
        return {
            "sasl_mechanism": mechanism,
            "sasl_oauth_token_provider": TokenFile(settings.kafka_sasl_token_file),
        }
    if settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
        raise SettingsError(
            f"kafka_sasl_mechanism={mechanism} needs kafka_sasl_username and kafka_sasl_password (or "
            "kafka_sasl_password_file) beside it"
        )
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
    }
