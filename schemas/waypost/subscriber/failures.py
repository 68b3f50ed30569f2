"""Translate aiokafka's failures for subscribers into errors of the library that say what to do."""

from typing import Final

from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NoBrokersAvailable,
    NodeNotReadyError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from waypost.errors import AccessDeniedError, KafkaUnavailableError, SubscriberError, WaypostError
from waypost.kafka.group_member import FencedInstanceIdError

_LOGIN: Final = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
_UNAVAILABLE: Final = (
    KafkaConnectionError,
    KafkaTimeoutError,
    NoBrokersAvailable,
    NodeNotReadyError,
    RequestTimedOutError,
)
_KEPT: Final = "The position is kept."
_ACLS: Final = "'waypost topics acls' prints the permissions that each role needs."


def subscriber_error(error: KafkaError, topic: str, group: str | None) -> WaypostError:
    """Return the library's error for one of aiokafka's that ended a subscription."""
    match error:
        case TopicAuthorizationFailedError():
            return AccessDeniedError(
                f"Kafka does not let this client read the topic {topic!r}. {_KEPT} {_ACLS}"
            )
        case GroupAuthorizationFailedError():
            return AccessDeniedError(
                f"Kafka does not let this client join the group {group!r}. {_KEPT} {_ACLS}"
            )
        case FencedInstanceIdError():
            return SubscriberError(f"{error.args[0]} (group_instance_id in kafka_options).")
        case ClusterAuthorizationFailedError():
            return AccessDeniedError(f"Kafka denied a request of the subscriber: {error}. {_KEPT} {_ACLS}")
        case _ if isinstance(error, _LOGIN):
            return AccessDeniedError(f"Kafka refused the login: {error}. {_KEPT} Check the kafka_options.")
        case _ if isinstance(error, _UNAVAILABLE):
            return KafkaUnavailableError(
                f"Kafka does not answer: {error}. {_KEPT} Start the subscriber again later."
            )
    return SubscriberError(f"The topic {topic!r} can't be read: {error}. {_KEPT}")
