"""TLS, client certificates and logins of Kafka clients: from settings to the options that aiokafka takes.

Contacts no broker. An unusable setting raises a SettingsError that names the setting and contains no secret.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from waypost.errors import SettingsError

PREFIX: Final = "kafka_"


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """The settings whose names begin with ``kafka_``, without that beginning. Files are PEM, secrets are plain."""

    security_protocol: str = "PLAINTEXT"
    ssl_ca_file: str | None = None
    ssl_certificate_file: str | None = None
    ssl_key_file: str | None = None
    ssl_key_password: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    sasl_token_file: str | None = None

    def options(self) -> Mapping[str, Any]:
        """Return the options of any aiokafka client that say how it is protected.

        Raises:
            SettingsError: Settings contradict each other, or a file can't be used.
        """
        protocol = self.security_protocol
        with_tls, with_login = protocol.endswith("SSL"), protocol.startswith("SASL")
        for family, used in (("ssl_", with_tls), ("sasl_", with_login)):
            unused = [one.name for one in fields(self) if one.name.startswith(family)]
            unused = sorted(name for name in unused if getattr(self, name) is not None)
            if unused and not used:
                raise SettingsError(
                    f"{PREFIX}{unused[0]} is set, but kafka_security_protocol={protocol} does not use it; "
                    f"set {'SASL_SSL' if with_tls or with_login or family == 'sasl_' else 'SSL'}"
                )
        if protocol == "PLAINTEXT":
            return {}
        return {
            "security_protocol": protocol,
            **({"ssl_context": self._context()} if with_tls else {}),
            **(self._login() if with_login else {}),
        }

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ssl_ca_file)
        except (OSError, ValueError) as error:
            raise _unusable("kafka_ssl_ca_file", self.ssl_ca_file, error, "no PEM certificates") from None
        certificate, key = self.ssl_certificate_file, self.ssl_key_file
        if certificate is None:
            if key is not None:
                raise SettingsError("kafka_ssl_key_file needs kafka_ssl_certificate_file as well")
            return context
        password = self.ssl_key_password or ""
        try:
            # A function, so that nobody is asked at the terminal for the password of an encrypted key.
            context.load_cert_chain(certificate, key, lambda: password)
        except (OSError, ValueError) as error:
            why = (
                "no PEM certificate and the key that belongs to it, or the key's password is missing or wrong"
            )
            raise _unusable(
                "kafka_ssl_certificate_file", f"{certificate} ({key or certificate})", error, why
            ) from None
        return context

    def _login(self) -> dict[str, Any]:
        mechanism = self.sasl_mechanism
        if mechanism is None:
            raise SettingsError(
                f"kafka_security_protocol={self.security_protocol} needs kafka_sasl_mechanism as well"
            )
        if mechanism == "OAUTHBEARER":
            if self.sasl_token_file is None:
                raise SettingsError("kafka_sasl_mechanism=OAUTHBEARER needs kafka_sasl_token_file as well")
            from waypost.kafka.token_file import TokenFile  # brings the Kafka client

            return {
                "sasl_mechanism": mechanism,
                "sasl_oauth_token_provider": TokenFile(self.sasl_token_file),
            }
        if self.sasl_username is None or self.sasl_password is None:
            raise SettingsError(
                f"kafka_sasl_mechanism={mechanism} needs kafka_sasl_username and kafka_sasl_password (or "
                "kafka_sasl_password_file) as well"
            )
        return {
            "sasl_mechanism": mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
        }


def _unusable(setting: str, path: str | None, error: Exception, otherwise: str) -> SettingsError:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return SettingsError(f"{setting} {path} can't be read: {error.strerror}")
    return SettingsError(f"{setting} {path}: {otherwise}")
