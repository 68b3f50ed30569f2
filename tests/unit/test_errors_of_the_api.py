"""Whatever an argument is, the public calls accept it or raise a WaypostError that was made for it."""

import ast
import asyncio
import builtins
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

import waypost
from waypost import (
    CheckpointManager,
    Codec,
    Deduplicator,
    DirectoryKeyStore,
    EnvironmentWrapper,
    FileWrapper,
    InvalidArgumentError,
    PostgresKeyStore,
    Publisher,
    Reader,
    Subscriber,
    SyncPublisher,
    TokenFile,
    WaypostError,
)
from waypost.adapters import Backend
from waypost.adapters.plain import plain_data, plain_value

LIBRARY: Final = Path(waypost.__file__).parent
NOWHERE: Final = "127.0.0.1:1"
NO_DSN: Final = "postgresql://u:secret@127.0.0.1:1/x"
MOMENT: Final = datetime(2026, 11, 30, tzinfo=UTC)

#: One of each kind that somebody passes by mistake: nothing, numbers out of range, text that no server accepts, other
#: types, and what can't even be compared or hashed.
ODD: Final = (
    *(None, True, 0, 7, -1, 2**70, 1.5, math.nan, "\0", "\ud800", "a b:c", b"x", (), (7,), [], ["x", 7], {}),
    *({7: 7}, {"x": 7}, {1, 2}, object(), MOMENT, datetime(2026, 11, 30), ValueError, len),
)
#: What a call that waits for something gets: a number would only make it wait.
ODD_TIMEOUTS: Final = (-1, math.nan, "x", b"x", [], {"x": 7}, object(), MOMENT)


async def _read(
    method: str, *arguments: Any, reader: Mapping[str, Any] | None = None, **options: Any
) -> None:
    async with Reader(**{"dsn": NO_DSN, "reconnect": 0, "timeout": 0.5, **(reader or {})}) as opened:
        await getattr(opened, method)(*arguments, **options)


async def _read_session(method: str, **options: Any) -> None:
    async with Reader(NO_DSN, reconnect=0, timeout=0.5) as opened:
        await getattr(opened.session("s"), method)(**options)


def _reader(**options: Any) -> Any:
    return _read("session_info", "s", reader=options)


async def _publish(method: str, **options: Any) -> None:
    publisher = await Publisher(NOWHERE).start()
    try:
        found = getattr(publisher, method)(**options)
        if inspect.isawaitable(found):
            await found
    finally:
        await publisher.close(0)


async def _publisher(**options: Any) -> None:
    publisher = Publisher(**{"bootstrap_servers": NOWHERE, **options})
    try:
        await publisher.start()
        publisher.create("s", "n", {"a": 1})
    finally:
        await publisher.close(0)


def _sync_publisher(**options: Any) -> None:
    publisher = SyncPublisher(**{"bootstrap_servers": NOWHERE, **options})
    publisher.close(0)


async def _kafka_options(**options: Any) -> None:
    await _publisher(kafka_options=options)


async def _subscriber(**options: Any) -> None:
    async with Subscriber(**{"bootstrap_servers": NOWHERE, **options}):
        pass


async def _subscriber_kafka_options(**options: Any) -> None:
    await _subscriber(kafka_options=options, group="g")


async def _barrier_kafka_options(**options: Any) -> None:
    await _read("barrier", "s", reader={"bootstrap_servers": NOWHERE, "kafka_options": options})


async def _handled(_: object) -> None: ...


async def _run(**options: Any) -> None:
    await Subscriber(NOWHERE).run(**{"handler": _handled, **options})


async def _token(**options: Any) -> None:
    await TokenFile(**options).token()


def _wrap(make: Callable[..., Any], **options: Any) -> None:
    make(**options).wrap(bytes(32), {"session": "s"})


async def _deployment(make: Callable[..., Any], **options: Any) -> None:
    await make(**options).deployment()


def _codec(**options: Any) -> Codec:
    return Codec(**{"store": DirectoryKeyStore("x"), "wrapper": FileWrapper("x"), **options})


async def _prepare(session_id: Any) -> None:
    await _codec().prepare(session_id)


async def _backend(**options: Any) -> None:
    async with Backend(**{"bootstrap_servers": NOWHERE, "dsn": NO_DSN, **options}):
        pass


def _traced(event: Any) -> None:
    with waypost.continued_trace(event):
        pass


def _managed(method: str, **options: Any) -> None:
    manager = CheckpointManager("s")
    manager.create("n", {})
    getattr(manager, method)(**options)


def _calls() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Each public call that takes arguments, with arguments that are right. One at a time is replaced."""
    yield "tenant_of", waypost.tenant_of, {"session_id": "a/b"}
    yield "continued_trace", _traced, {"event": None}
    yield "Topics", waypost.Topics, {"prefix": "x"}
    policy = {"max_checkpoints": 5, "compress_after": 5, "keep_recent": 5}
    yield "RetentionPolicy", waypost.RetentionPolicy, {**policy, "max_age": 5, "encrypted": False}
    yield "Checkpoint.from_dict", waypost.Checkpoint.from_dict, {"mapping": {}}
    checkpoint = {"id": "s:1", "name": "n", "timestamp": "2026-11-30T00:00:00Z", "data": {}, "metadata": {}}
    yield "Checkpoint.from_dict", lambda **kept: waypost.Checkpoint.from_dict(kept), checkpoint
    yield "Deduplicator", Deduplicator, {"size": 5}
    yield "Deduplicator.check_and_add", Deduplicator().check_and_add, {"event": None}
    yield "Deduplicator.once", Deduplicator().once, {"handler": _handled}

    yield "CheckpointManager", CheckpointManager, {"session_id": "s", **policy, "default": None}
    one = {"checkpoint_id": "s:1"}
    created = {"name": "n", "data": {}, "metadata": {}, "timestamp": MOMENT}
    imported = {"json_text": "[]", "on_conflict": "skip"}
    idle = {"idle_since": MOMENT, "pinned": False}
    changed = {"max_checkpoints": 5, "max_age": 5, "encrypted": False}
    for method, options in {
        "create": created,
        **dict.fromkeys(("pin", "unpin", "delete", "get", "rollback_to"), one),
        "rollback": {**one, "discard_later": True},
        "configure": changed,
        "expire": idle,
        "import_checkpoints": imported,
        "on_checkpoint": {"callback": print},
        "get_by_name": {"name": "n"},
        "get_latest": {"name": "n"},
        "get_since": {"t": MOMENT},
        "get_between": {"a": MOMENT, "b": MOMENT},
    }.items():
        yield f"CheckpointManager.{method}", partial(_managed, method), options

    yield "TokenFile", _token, {"path": "x"}
    yield "FileWrapper", partial(_wrap, FileWrapper), {"path": "x"}
    yield "EnvironmentWrapper", partial(_wrap, EnvironmentWrapper), {"variable": "x"}
    yield "DirectoryKeyStore", partial(_deployment, DirectoryKeyStore), {"path": "x"}
    held = {"dsn": NO_DSN, "timeout": 0.5, "statement_cache_size": 0}
    yield "PostgresKeyStore", partial(_deployment, PostgresKeyStore), held
    yield "Codec", _codec, dict.fromkeys(("store", "wrapper", "allow_plaintext", "refresh", "max_keys"))
    yield "Codec.prepare", _prepare, {"session_id": "s"}

    publisher = dict.fromkeys((*waypost.PublisherOptions.__annotations__, "bootstrap_servers", "unknown"))
    yield "Publisher", _publisher, publisher
    yield "SyncPublisher", _sync_publisher, {**publisher, "block_timeout": None}
    for method, options in {
        "create": created,
        "clear": {},
        "erase": {},
        **dict.fromkeys(("pin", "unpin", "delete"), one),
        "rollback": {**one, "discard_later": True},
        "configure": changed,
        "expire": idle,
        "import_checkpoints": imported,
        "publish_raw": {"command_type": "x", "body": b"{}", "timestamp": MOMENT, "command_id": "x"},
        "create_and_wait": {**created, "timeout": 0.01},
        "publish_and_wait": {"command_type": "x", "body": b"{}", "timeout": 0.01},
    }.items():
        yield f"Publisher.{method}", partial(_publish, method), {"session_id": "s", **options}
    for method in ("flush", "close"):
        yield f"Publisher.{method}", partial(_publish, method), {"timeout": 0}
    client = (
        "client_id",
        "security_protocol",
        "ssl_context",
        "request_timeout_ms",
        "retry_backoff_ms",
        "unknown",
    )
    login = ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password", "sasl_oauth_token_provider")
    access = dict.fromkeys((*client, *login))
    access_now = {name: None for name in access if name != "retry_backoff_ms"}
    yield "Publisher.start", _kafka_options, {**access, "compression_type": None, "max_batch_size": None}

    chosen = dict.fromkeys(("names", "types", "sessions", "since", "from_beginning", "topic_prefix", "group"))
    others = dict.fromkeys(("bootstrap_servers", "stuck_after", "on_restart", "codec", "kafka_options"))
    yield "Subscriber", _subscriber, {**chosen, **others}
    fetching = ("isolation_level", "fetch_max_wait_ms", "fetch_max_bytes", "client_rack")
    member = ("session_timeout_ms", "partition_assignment_strategy", "group_instance_id")
    yield "Subscriber.start", _subscriber_kafka_options, {**access, **dict.fromkeys((*fetching, *member))}
    handling = {"concurrency": 1, "retries": 1, "on_failure": _handled, "dead_letters": "x"}
    yield "Subscriber.run", _run, {"handler": _handled, **handling}

    reader = dict.fromkeys(("dsn", "schema", "pool_size", "timeout", "reconnect", "statement_cache_size"))
    kafka = dict.fromkeys(("bootstrap_servers", "topic_prefix", "kafka_options", "tenant", "codec"))
    yield "Reader", _reader, {**reader, **kafka}
    yield "Reader kafka_options", _barrier_kafka_options, access_now
    listed = {"prefix": "s", "limit": 5, "cursor": None}
    for method, options in {
        "sessions": listed,
        "recent_sessions": {**listed, "active_since": MOMENT},
        "session_info": {"session_id": "s"},
        "barrier": {"session_id": "s", "timeout": 0.01},
        "wait_for": {"token": (0, 0), "timeout": 0.01},
    }.items():
        yield f"Reader.{method}", partial(_read, method), options
    found = {"name": "n", "metadata": {}}
    for method, options in {
        "get": one,
        "rollback_to": one,
        "get_by_name": found,
        "get_latest": {"name": "n"},
        "get_all": found,
        "get_since": {"t": MOMENT, **found},
        "get_between": {"a": MOMENT, "b": MOMENT, **found},
        "page": {**found, "cursor": "5", "limit": 5, "since": MOMENT, "between": (MOMENT, MOMENT)},
    }.items():
        yield f"SessionReader.{method}", partial(_read_session, method), options

    backend = ("bootstrap_servers", "dsn", "topic_prefix", "schema", "timeout", "publisher_options")
    yield "Backend", _backend, dict.fromkeys((*backend, "reader_options", "codec"))
    yield "plain_value", plain_value, {"kind": "json", "raw": b"{}", "max_values": 5}
    yield "plain_data", plain_data, {"data": {}, "max_values": 5}


CALLS: Final = list(_calls())


async def _outcome(call: Callable[..., Any], options: Mapping[str, Any]) -> Exception | None:
    try:
        found = call(**options)
        if inspect.isawaitable(found):
            async with asyncio.timeout(5):
                await found
    except Exception as error:
        return error
    return None


def _odd_cases(options: Mapping[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    # Where None stands for the default, only the replaced argument is passed.
    base = {name: value for name, value in options.items() if value is not None}
    for name in options:
        for odd in ODD_TIMEOUTS if name == "timeout" and "timeout" in base else ODD:
            yield name, odd, {**base, name: odd}


@pytest.mark.parametrize(("name", "call", "options"), CALLS, ids=[name for name, *_ in CALLS])
async def test_an_odd_argument_is_accepted_or_a_waypost_error(
    name: str,
    call: Callable[..., Any],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    leaked = []
    for parameter, odd, given in _odd_cases(options):
        error = await _outcome(call, given)
        if error is not None and not isinstance(error, WaypostError):
            leaked.append(f"{name}({parameter}={odd!r}): {error!r}")
    assert not leaked, "\n".join(leaked)


WRONG: Final[dict[str, Callable[[], Any]]] = {
    "a tenant of a number": lambda: waypost.tenant_of(3),  # type: ignore[arg-type]
    "a port above the highest": lambda: _reader(dsn="postgresql://u:secret@127.0.0.1:99999/x"),
    "a port of letters": lambda: _reader(dsn="postgresql://u:secret@127.0.0.1:x/x"),
    "a DSN without a scheme": lambda: _reader(dsn="localhost"),
    "a DSN with an unknown sslmode": lambda: _reader(dsn=f"{NO_DSN}?sslmode=odd"),
    "a DSN with a host name that is too long": lambda: _reader(dsn=f"postgresql://u:secret@{'a' * 70}.b/x"),
    "a DSN as bytes": lambda: _reader(dsn=NO_DSN.encode()),
    "no DSN in the list": lambda: _reader(dsn=[]),
    "a schema with a blank": lambda: _reader(schema="a b"),
    "too many connections": lambda: _reader(pool_size=2**70),
    "a timeout of text": lambda: _kafka_options(request_timeout_ms="x"),
    "an endless timeout": lambda: _kafka_options(request_timeout_ms=math.inf),
    "a context that is text": lambda: _kafka_options(security_protocol="SSL", ssl_context="ca.pem"),
    "a mechanism that does not exist": lambda: _kafka_options(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="NONE"
    ),
    "a login without a password": lambda: _kafka_options(security_protocol="SASL_PLAINTEXT"),
    "OAUTHBEARER without a token": lambda: _kafka_options(sasl_mechanism="OAUTHBEARER"),
    "an unknown option of the client": lambda: _kafka_options(unknown=1),
    "an unknown codec of the client": lambda: _kafka_options(compression_type="rar"),
    "an unknown option of a publisher": lambda: _publisher(unknown=1),
    "no addresses": lambda: _publisher(bootstrap_servers=""),
    "a broker's port above the highest": lambda: _publisher(bootstrap_servers="h:99999"),
    "a callback that is awaited": lambda: _publisher(on_delivery=_handled),
    "an unknown option of a consumer": lambda: _subscriber_kafka_options(unknown=1),
    "an unknown isolation level": lambda: _subscriber_kafka_options(isolation_level="x"),
    "an assignor that is text": lambda: _subscriber_kafka_options(partition_assignment_strategy=("x",)),
    "an unknown result type": lambda: _subscriber(types=["x"]),
    "names that are one name": lambda: _subscriber(names="x"),
    "nothing to be done at a time": lambda: _run(concurrency=0),
    "a handler that can't be called": lambda: _run(handler="x"),
    "a barrier with a context that is text": lambda: _barrier_kafka_options(ssl_context="ca.pem"),
    "a backend without a database": lambda: _backend(dsn=None),
    "an unknown option of a backend's reader": lambda: _backend(reader_options={"unknown": 1}),
    "a value that is cut": lambda: plain_value("msgpack", b"\x92"),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
async def test_an_argument_that_is_wrong_is_an_invalid_argument(
    call: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = await _outcome(call, {})
    assert isinstance(error, InvalidArgumentError), repr(error)
    assert isinstance(error, ValueError)
    assert isinstance(error, TypeError)
    assert "secret" not in str(error)


#: Errors of Python that the library makes, by file, and why. They are caught in the library, or somebody's protocol
#: asks for them.
ALLOWED: Final = {
    "__init__.py": ("AttributeError", "a module's __getattr__"),
    "deprecation.py": ("AttributeError", "a module's __getattr__"),
    "reader/pages.py": ("AttributeError", "__getattr__ of an object that used to be a list"),
    "adapters/_langgraph_encoded.py": ("TypeError", "a default of JSON, which says so that it has no answer"),
    "model/limits.py": ("TypeError", "a default of JSON, which says so that it has no answer"),
    "adapters/_langgraph_exposed.py": (
        "LookupError",
        "a path that leads nowhere, which its caller leaves out",
    ),
    "adapters/_langgraph_serializer.py": (
        "ValueError",
        "a zone in a stored value, which becomes a DecodeError",
    ),
    "adapters/_strict_pickle.py": ("ValueError", "a damaged pickle, which becomes a DecodeError"),
    "adapters/home_loop.py": (
        "RuntimeError",
        "a call that would stop its own event loop, as asyncio raises it",
    ),
    "adapters/loose_json.py": ("ValueError", "damaged text of a record, which adapters report as unreadable"),
    "adapters/plain.py": ("ValueError", "damaged values, which the two public functions translate"),
    "model/times.py": ("ValueError", "text that is no time, whose callers name the field in their rejection"),
    "wire/json_default.py": ("TypeError", "a default of JSON, which says so that it has no answer"),
    "wire/command_models.py": ("ValueError", "a validator of pydantic"),
    "wire/id_lists.py": (
        "ValueError",
        "ranges in a result that can't be read, whose callers pass the result over",
    ),
    "wire/signing.py": ("ValueError", "a key or a hash, whose callers name the field in their rejection"),
    "subscriber/decryption.py": (
        "LookupError ValueError",
        "a result that can't be read, which becomes a decryption_error",
    ),
    "kafka/log_ends.py": ("TimeoutError", "the last error so far, of an answer that does not come"),
    "publisher/sender.py": (
        "TimeoutError",
        "a broker that does not answer, for the log and the next attempt",
    ),
    "publisher/waiter.py": ("TimeoutError", "the end of a wait, which becomes a ResultTimeoutError"),
    "publisher/spool/log.py": (
        "OSError FileNotFoundError",
        "a full disk or a lost file, which becomes a SpoolError",
    ),
    "publisher/spool/reader.py": ("OSError", "a file that is too short, which becomes a SpoolError"),
    "reader/pool.py": (
        "TimeoutError ConnectionError",
        "a slow or changed server, which becomes a ReaderError",
    ),
    "kafka/decompression.py": ("MemoryError", "memory that is used up, as Python says it"),
    "sharing.py": ("RuntimeError", "a request whose asker was canceled, for others who wait for it"),
    "wire/raw_json.py": ("ValueError", "text that was not validated before, a mistake of the library's own"),
}
#: Allowed everywhere: a package that is not installed, and what can't happen.
ANYWHERE: Final = {"ImportError", "AssertionError"}


def _made(path: Path) -> set[str]:
    """Return the names of Python's own errors that a file makes or raises."""
    raised = {
        kind.__name__
        for kind in vars(builtins).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    }
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {
        each.func.id
        for each in ast.walk(tree)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)
    }
    bare = {
        each.exc.id
        for each in ast.walk(tree)
        if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Name)
    }
    # A class pattern of a match statement is not a call.
    return (calls | bare) & raised


def test_the_library_makes_no_errors_of_python_but_these() -> None:
    found = {str(path.relative_to(LIBRARY)): _made(path) - ANYWHERE for path in LIBRARY.rglob("*.py")}
    expected = {path: set(kinds.split()) for path, (kinds, _) in ALLOWED.items()}
    assert {path: kinds for path, kinds in found.items() if kinds} == expected
