"""Connect commands to Kafka and Postgres, and explain failures in one line."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from waypost.reader.failures import RIGHTS_ADVICE, TIME_LIMITS, last_word, reason, took_too_long
from waypost.statements import DEFAULT_SCHEMA, load_statement
from waypost_worker.cli.support.output import USAGE, CommandError
from waypost_worker.config.keys import make_codec
from waypost_worker.config.settings import Settings, config_origin, masked_dsn

if TYPE_CHECKING:
    from pathlib import Path

    from waypost.publisher.client import Publisher
    from waypost.reader.client import Reader
    from waypost.wire.topics import Topics
    from waypost_worker.kafka.client import ClusterClient
    from waypost_worker.kafka.connection import Connection

_SOURCE = "/waypost/cli"


def kafka_connection(settings: Settings) -> "Connection":
    """Return the arguments for the worker's Kafka modules."""
    from waypost_worker.config import kafka

    return kafka.kafka_connection(settings, "waypost-cli")


def kafka_client(settings: Settings) -> "ClusterClient":
    """Return the connections that all logs of a command share. They close with the last log that uses them."""
    from waypost_worker.kafka.client import ClusterClient

    return ClusterClient(kafka_connection(settings))


def kafka_options(settings: Settings) -> Mapping[str, Any]:
    """Return the ``options`` of a publisher or subscriber."""
    return kafka_connection(settings).security


@asynccontextmanager
async def kafka_errors(settings: Settings) -> AsyncIterator[None]:
    """Raise CommandError if Kafka is unreachable or denies access."""
    from aiokafka.errors import KafkaConnectionError, KafkaError

    from waypost.errors import WaypostError
    from waypost.kafka.diagnosis import require_access
    from waypost_worker.partition.ports import RefusedError, UnavailableError

    try:
        await require_access(kafka_connection(settings).options())
        yield
    except WaypostError as error:
        if isinstance(error.__cause__, KafkaConnectionError):  # of a subscriber
            raise await _kafka_away(settings, error.__cause__) from None
        raise
    except (KafkaConnectionError, TimeoutError) as error:
        raise await _kafka_away(settings, error) from None
    except UnavailableError as error:
        if isinstance(error.__cause__, KafkaConnectionError | TimeoutError):
            raise await _kafka_away(settings, error.__cause__) from None
        raise CommandError(str(error)) from None
    except RefusedError as error:
        raise CommandError(str(error)) from None
    except KafkaError as error:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise CommandError(f"Kafka at {settings.bootstrap_servers}: {text}") from None


async def _kafka_away(settings: Settings, error: BaseException) -> CommandError:
    from waypost.kafka.diagnosis import is_auth_failure, refusal

    options = kafka_connection(settings).options()
    why = await refusal(options) if is_auth_failure(error, options) else None
    reason = "" if why is None else f": {why}"
    return CommandError(
        f"Kafka at {settings.bootstrap_servers} does not answer{reason}; {_where(settings, 'bootstrap_servers')}"
    )


async def topic_partitions(settings: Settings, topics: "Topics | None" = None) -> Mapping[str, int]:
    """Return the partition count of each of the two topics, or of two others. A missing topic is omitted."""
    from aiokafka.admin import AIOKafkaAdminClient

    async with kafka_errors(settings):
        admin = AIOKafkaAdminClient(**kafka_connection(settings).options())
        try:
            await admin.start()
            named = topics or settings.topics
            described = await admin.describe_topics([named.commands, named.results])
        finally:
            await admin.close()
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}


async def require_topics(settings: Settings) -> None:
    """Raise CommandError unless both topics exist, because clients would silently wait for a missing one."""
    present = await topic_partitions(settings)
    for name in (settings.topics.commands, settings.topics.results):
        if name not in present:
            raise CommandError(
                f"the topic {name!r} does not exist on {settings.bootstrap_servers}: "
                "run 'waypost topics create', or see --topic-prefix"
            )


@asynccontextmanager
async def publishing(settings: Settings, spool: "Path | None" = None) -> "AsyncIterator[Publisher]":
    """A publisher, once the topics are there. It is closed without waiting: flush it."""
    from waypost.publisher.client import Publisher

    codec = make_codec(settings)
    await require_topics(settings)
    async with kafka_errors(settings):
        publisher = Publisher(
            settings.bootstrap_servers,
            topic_prefix=settings.topic_prefix,
            source=_SOURCE,
            kafka_options=kafka_options(settings),
            spool=spool,
            codec=codec,
        )
        await publisher.start()
        try:
            yield publisher
        finally:
            await publisher.close(timeout=0)


@asynccontextmanager
async def reading(settings: Settings, tenant: str | None = None) -> "AsyncIterator[Reader]":
    """Yield a reader, of one tenant's sessions if it is given."""
    from waypost.reader.client import Reader

    async with (
        postgres_errors(settings),
        _errors_of_asyncpg(),
        Reader(
            settings.postgres_dsn.get_secret_value(),
            schema=settings.postgres_schema,
            timeout=settings.request_timeout,
            statement_cache_size=settings.postgres_statement_cache,
            tenant=tenant,
            codec=make_codec(settings),
        ) as reader,
    ):
        yield reader


@asynccontextmanager
async def _errors_of_asyncpg() -> AsyncIterator[None]:
    """Raise the cause of a reader's error, which the command line explains in its own words."""
    import asyncpg

    from waypost.errors import EncryptionError, WaypostError

    try:
        yield
    except (WaypostError, ValueError) as error:
        cause = error.__cause__
        if isinstance(error, EncryptionError) or not isinstance(
            cause, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError | OSError
        ):
            raise
        said = last_word(cause)
        for shard in getattr(error, "__notes__", ()):
            said.add_note(shard)
        raise said from None


@asynccontextmanager
async def postgres_errors(settings: Settings, dsn: str | None = None) -> AsyncIterator[None]:
    """Raise CommandError if Postgres is unreachable, denies access, or has no Waypost schema: the server of ``dsn``, or
    any.
    """
    import asyncpg

    where = masked_dsn(settings.postgres_dsn.get_secret_value() if dsn is None else dsn)
    try:
        yield
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise CommandError(f"the Postgres DSN {where} can't be used: {error}", USAGE) from None
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        schema = settings.postgres_schema
        named = "Waypost schema" if schema == DEFAULT_SCHEMA else f"Waypost schema {schema!r}"
        raise CommandError(f"the database {where} has no {named}: run 'waypost migrate'") from None
    except (
        asyncpg.PostgresConnectionError,
        asyncpg.QueryCanceledError,
        asyncpg.TransactionTimeoutError,
    ) as error:
        if not took_too_long(error):
            raise _unreachable(settings, where, error) from None
        ended = last_word(error)
        setting = TIME_LIMITS[getattr(ended, "sqlstate", "")]
        raise CommandError(
            f"Postgres at {where} canceled a statement that took too long: {ended}. Raise {setting} for the "
            f"role, or for this connection with {setting}=0 in the DSN"
        ) from None
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise _unreachable(settings, where, error) from None
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError) as error:
        from waypost_worker.postgres.errors import POOLER_ADVICE

        raise CommandError(
            f"Postgres at {where} mixed up prepared statements: {error.args[0]}; {POOLER_ADVICE}"
        ) from None
    except asyncpg.ReadOnlySQLTransactionError as error:
        raise CommandError(
            f"Postgres at {where} is read-only ({error}). Nothing was changed: point the DSN at the primary; with "
            "target_session_attrs=read-write it rejects other servers"
        ) from None
    except asyncpg.InsufficientPrivilegeError as error:
        advice = (error.hint or RIGHTS_ADVICE).rstrip(".")
        raise CommandError(f"Postgres at {where}: {error.args[0]}; {advice}") from None
    except asyncpg.PostgresError as error:
        raise CommandError(f"Postgres at {where}: {error}") from None


def _unreachable(settings: Settings, where: str, error: Exception) -> CommandError:
    # TimeoutError, often without a text, is an OSError. asyncpg calls it an error of its own where the server ended
    # the connection, and a statement comes before the end of the stream is noticed.
    # A reader notes which of several databases it was.
    said = ", ".join([reason(error), *getattr(error, "__notes__", ())])
    return CommandError(f"Postgres at {where} can't be reached: {said}; {_where(settings, 'postgres_dsn')}")


def _where(settings: Settings, name: str) -> str:
    default = Settings.model_fields[name].default
    if getattr(settings, name) != default or config_origin(name) != "default":
        return "'waypost config show' says where the address comes from"
    # The likeliest mistake of a first day: a second terminal that stands elsewhere.
    return (
        "no server is named, and no 'waypost dev' runs in this directory: go where it runs, or name servers with "
        "flags, WAYPOST_ variables or waypost.toml"
    )


def query(name: str, schema: str = DEFAULT_SCHEMA) -> str:
    """Return a statement by name; ``rejected/list`` is ``sql/list.sql`` of the folder ``rejected``."""
    folder, _, statement = name.rpartition("/")
    return load_statement(f"waypost_worker.cli.{folder}", statement, schema)
