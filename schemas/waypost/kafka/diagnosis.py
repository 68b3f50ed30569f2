"""Explain why brokers reject a client: certificates, logins, protocols.

aiokafka says only that it could not connect and logs the rest, so this connects again and examines the result. Its
messages contain no password and no token.
"""

import inspect
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from aiokafka.conn import create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from waypost.errors import AccessDeniedError, KafkaUnavailableError, WaypostError
from waypost.kafka.addresses import broker_addresses

_KNOWN: Final = frozenset(inspect.signature(create_conn).parameters)


def unreachable(options: Mapping[str, Any]) -> str:
    """Return what to say of brokers that a client with these options of aiokafka can't reach."""
    servers = ", ".join(f"{host}:{port}" for host, port in broker_addresses(options["bootstrap_servers"]))
    return f"No broker can be reached at {servers}. Check bootstrap_servers, and that Kafka is running."


def is_auth_failure(error: BaseException | None, options: Mapping[str, Any]) -> bool:
    """Return whether this error of a client may be due to TLS or its login."""
    protected = options.get("security_protocol", "PLAINTEXT") != "PLAINTEXT"
    return isinstance(error, KafkaConnectionError) or (protected and isinstance(error, TimeoutError))


async def refusal(options: Mapping[str, Any]) -> str | None:
    """Return why no broker accepts a client with these options of aiokafka's; None if one does.

    Waits for at most ``request_timeout_ms`` per broker and step.
    """
    found = await _refusals(options)
    return None if found is None else "; ".join(each.text for each in found)


async def connection_error(options: Mapping[str, Any]) -> WaypostError:
    """Return the error for a client with these options that could not connect."""
    found = await _refusals(options) if "security_protocol" in options else None
    if not found:
        return KafkaUnavailableError(unreachable(options))
    why = "; ".join(each.text for each in found)
    if any(each.denied for each in found):
        return AccessDeniedError(f"Kafka does not accept this client: {why}. Check the kafka_options.")
    return KafkaUnavailableError(
        f"No broker can be reached: {why}. Check bootstrap_servers and the kafka_options, and that Kafka is running."
    )


async def _refusals(options: Mapping[str, Any]) -> "list[_Refusal] | None":
    own = {name: value for name, value in options.items() if name in _KNOWN}
    found: list[_Refusal] = []
    for host, port in broker_addresses(options["bootstrap_servers"]):
        try:
            connection = await create_conn(host, port, **own)
        except (OSError, KafkaError, TimeoutError) as error:
            found.append(_meaning(error, options).at(host, port))
            continue
        try:
            answer = await connection.send(MetadataRequest([]))
        except (OSError, KafkaError, TimeoutError) as error:
            found.append(_meaning(error, options).at(host, port))
        else:
            if answer.brokers:
                return None
            # Brokers report a rejected token in a form that aiokafka does not read, and then answer nothing but errors,
            # which look like a cluster without brokers.
            text = f"does not accept the login with {options.get('sasl_mechanism')}"
            found.append(_Refusal(text, denied=True).at(host, port))
        finally:
            connection.close()
    return found


class _Refusal(NamedTuple):
    """Return why a broker did not accept a client, and whether it could accept it another time."""

    text: str
    denied: bool

    def at(self, host: str, port: int) -> "_Refusal":
        """Return the same with the broker's address before it."""
        return self._replace(text=f"{host}:{port} {self.text}")


async def require_access(options: Mapping[str, Any]) -> None:
    """To be called before a client that logs in with a token starts; KafkaConnectionError says why it can't.

    aiokafka takes a rejected token for a successful login, and would then wait indefinitely.
    """
    if options.get("sasl_mechanism") == "OAUTHBEARER" and (why := await refusal(options)) is not None:
        raise KafkaConnectionError(why)


def _meaning(error: BaseException, options: Mapping[str, Any]) -> _Refusal:
    protocol = options.get("security_protocol", "PLAINTEXT")
    if isinstance(error.__cause__, ssl.SSLError):
        error = error.__cause__
    match error:
        case ssl.SSLCertVerificationError():
            return _Refusal(f"shows a certificate that is not trusted here: {error.verify_message}", True)
        case ssl.SSLError():
            return _Refusal(
                f"ended the TLS handshake ({error.reason or error}): it may want a client certificate that it "
                "trusts, or speak no TLS on this port",
                True,
            )
        case SaslAuthenticationFailed():
            why = " ".join(map(str, error.args)) or "it does not say why"
            return _Refusal(f"refused the login: {why}", True)
        case UnsupportedSaslMechanismError():
            return _Refusal(f"takes no login with {options.get('sasl_mechanism')}", True)
        case KafkaConnectionError() | ConnectionResetError():
            return _Refusal(f"closed the connection: it may not speak {protocol} on this port", False)
        case KafkaError():
            return _Refusal(f"refused: {error}", True)
        case TimeoutError():
            return _Refusal(f"did not answer in time: it may not speak {protocol} on this port", False)
        case OSError():
            return _Refusal(f"can't be reached: {error.strerror or error}", False)
    return _Refusal(str(error), False)
