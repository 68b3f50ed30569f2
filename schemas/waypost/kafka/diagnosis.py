"""Why brokers don't take a client, in words: certificates, logins, protocols.

aiokafka says only that it could not connect and logs the rest, so this connects once more and looks at what
happens. What it says holds no password and no token.
"""

import inspect
import ssl
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.conn import create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from waypost.kafka.addresses import broker_addresses

_KNOWN: Final = frozenset(inspect.signature(create_conn).parameters)


def unreachable(options: Mapping[str, Any]) -> KafkaConnectionError:
    """For a client that could not connect, in the words of its settings."""
    servers = ", ".join(f"{host}:{port}" for host, port in broker_addresses(options["bootstrap_servers"]))
    return KafkaConnectionError(f"no broker can be reached at {servers}")


def is_auth_failure(error: BaseException | None, options: Mapping[str, Any]) -> bool:
    """Whether this error of a client may be due to how it is protected."""
    protected = options.get("security_protocol", "PLAINTEXT") != "PLAINTEXT"
    return isinstance(error, KafkaConnectionError) or (protected and isinstance(error, TimeoutError))


async def refusal(options: Mapping[str, Any]) -> str | None:
    """Why no broker takes a client with these options of aiokafka's; None if one does, or was away just now.

    Waits for at most ``request_timeout_ms`` per broker and step.
    """
    own = {name: value for name, value in options.items() if name in _KNOWN}
    reasons: list[str] = []
    for host, port in broker_addresses(options["bootstrap_servers"]):
        try:
            connection = await create_conn(host, port, **own)
        except (OSError, KafkaError, TimeoutError) as error:
            reasons.append(f"{host}:{port} {_meaning(error, options)}")
            continue
        try:
            answer = await connection.send(MetadataRequest([]))
        except (OSError, KafkaError, TimeoutError) as error:
            reasons.append(f"{host}:{port} {_meaning(error, options)}")
        else:
            if answer.brokers:
                return None
            # What it thinks of a token, a broker says in a form that aiokafka does not read, and then answers
            # nothing but errors, which look like a cluster without brokers.
            reasons.append(f"{host}:{port} does not accept the login with {options.get('sasl_mechanism')}")
        finally:
            connection.close()
    return "; ".join(reasons)


async def require_access(options: Mapping[str, Any]) -> None:
    """To be called before a client that logs in with a token starts; KafkaConnectionError says why it can't.

    aiokafka takes a refused token for a login that worked, and would then wait for ever.
    """
    if options.get("sasl_mechanism") == "OAUTHBEARER" and (why := await refusal(options)) is not None:
        raise KafkaConnectionError(why)


def _meaning(error: BaseException, options: Mapping[str, Any]) -> str:
    protocol = options.get("security_protocol", "PLAINTEXT")
    if isinstance(error.__cause__, ssl.SSLError):
        error = error.__cause__
    match error:
        case ssl.SSLCertVerificationError():
            return f"shows a certificate that is not trusted here: {error.verify_message}"
        case ssl.SSLError():
            return (
                f"ended the TLS handshake ({error.reason or error}): it may want a client certificate that it "
                "trusts, or speak no TLS on this port"
            )
        case SaslAuthenticationFailed():
            return f"refused the login: {' '.join(map(str, error.args)) or 'it does not say why'}"
        case UnsupportedSaslMechanismError():
            return f"takes no login with {options.get('sasl_mechanism')}"
        case KafkaConnectionError() | ConnectionResetError():
            return f"closed the connection: it may not speak {protocol} on this port"
        case KafkaError():
            return f"refused: {error}"
        case TimeoutError():
            return f"did not answer in time: it may not speak {protocol} on this port"
        case OSError():
            return f"can't be reached: {error.strerror or error}"
    return str(error)
