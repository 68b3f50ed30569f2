"""NUL, halves of characters and endless text in every public call: a clear error, and nothing was sent.

The calls are found by their signatures, so that a new one is tried, too. Kafka and Postgres can't be reached here: an
error that says so would mean that a call went out.
"""

import asyncio
import inspect
import typing
import warnings
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from waypost import (
    CheckpointManager,
    DatabaseUnavailableError,
    InvalidCommandError,
    KafkaUnavailableError,
    Publisher,
    Reader,
    ResultTimeoutError,
    SessionReader,
    Subscriber,
    SyncPublisher,
    WaypostError,
)
from waypost.errors import LONGEST_MESSAGE

NOWHERE = "127.0.0.1:1"
DSN = "postgresql://u:secret@127.0.0.1:1/waypost"
NOW = datetime(2026, 11, 30, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "session_id": "s",
    "name": "n",
    "data": {},
    "checkpoint_id": "s:1",
    "json_text": "[]",
    "command_type": "waypost.session.clear",
    "body": b"{}",
    "token": (0, 0),
    "idle_since": NOW,
    "t": NOW,
    "a": NOW,
    "b": NOW,
    "query": "q",
    "n": 1,
    "changes": {},
    "on_conflict": "skip",
}
#: Internal, and gone with the deprecated names.
NOT_TRIED = {"fetch", "fetch_all"}
SENT = (DatabaseUnavailableError, KafkaUnavailableError, ResultTimeoutError)

BAD_PART = st.sampled_from(["\0", "\ud800", "\udfff", "a\0b", "\ud83d"])
TEXT = st.text(st.characters(codec=None), max_size=20)
BAD = st.builds(lambda before, bad, after: before + bad + after, TEXT, BAD_PART, TEXT)
ENDLESS = st.sampled_from(["x", "\u202e", "\x1b[31m", "\U000e0041"])


def text_parameters(method: Callable[..., Any]) -> Iterator[str]:
    """Names of the parameters that take text, alone or in an object."""
    for name, parameter in inspect.signature(method).parameters.items():
        if name != "self" and "str" in str(parameter.annotation) and parameter.kind != parameter.VAR_KEYWORD:
            yield name


def public(kind: type) -> list[tuple[str, str]]:
    """The calls of a class, each with a parameter that takes text."""
    return [
        (name, parameter)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and name not in NOT_TRIED
        for parameter in text_parameters(method)
    ]


def arguments(method: Callable[..., Any], parameter: str, bad: str) -> tuple[list[Any], dict[str, Any]]:
    """Good arguments where they are required, and ``bad`` in ``parameter``."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, each in inspect.signature(method).parameters.items():
        if name == parameter:
            value: Any = bad
            if "dict" in str(each.annotation) or "Mapping" in str(each.annotation):
                value = {"key": [bad]} if len(bad) % 2 else {bad: 1}
        elif each.default is not each.empty or each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
            continue
        else:
            value = GOOD[name]
        if each.kind == each.KEYWORD_ONLY or each.default is not each.empty:
            named[name] = value
        else:
            positional.append(value)
    return positional, named


async def outcome(owner: Any, name: str, parameter: str, bad: str) -> Any:
    """What a call returned or raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        method = getattr(owner, name)
        positional, named = arguments(method, parameter, bad)
        try:
            found = method(*positional, **named)
            if inspect.isasyncgen(found):
                return [each async for each in found]
            return await typing.cast("Awaitable[Any]", found) if inspect.isawaitable(found) else found
        except Exception as error:
            return error


def judge(found: Any, bad: str, *, cannot_be: bool) -> None:
    """An error of ours with a message that a terminal can show, or nothing found."""
    if not isinstance(found, Exception):
        found = getattr(found, "checkpoints", found)  # of a page
        assert not cannot_be or found is None or found == 0 or not len(found), f"{found!r} for {bad[:50]!r}"
        return
    assert not isinstance(found, SENT), f"it was sent: {found!r}"
    assert isinstance(found, WaypostError | ValueError | TypeError), repr(found)
    # Errors of other libraries say neither what was kept nor what to do.
    assert isinstance(found, WaypostError) or type(found) in (ValueError, TypeError), repr(found)
    message = str(found)
    assert len(message) <= LONGEST_MESSAGE
    assert message.replace("\n", "").isprintable(), message
    assert "secret" not in message


def reader() -> Reader:
    return Reader(DSN, timeout=1, reconnect=0)


@pytest.mark.parametrize(("name", "parameter"), public(Reader))
@settings(max_examples=15, deadline=None)
@given(bad=BAD)
def test_a_reader_sends_no_text_that_postgres_cannot_take(name: str, parameter: str, bad: str) -> None:
    async def call() -> Any:
        async with reader() as reading:
            return await outcome(reading, name, parameter, bad)

    found = asyncio.run(call())
    judge(found, bad, cannot_be=True)


@pytest.mark.parametrize(("name", "parameter"), public(SessionReader))
@settings(max_examples=15, deadline=None)
@given(bad=BAD)
def test_the_reads_of_a_session_send_no_text_that_postgres_cannot_take(
    name: str, parameter: str, bad: str
) -> None:
    async def call() -> Any:
        async with reader() as reading:
            return await outcome(reading.session("s"), name, parameter, bad)

    judge(asyncio.run(call()), bad, cannot_be=True)


@pytest.mark.parametrize("token", [(2**31, 0), (-1, 0), (0, 2**63), (0.5, 1), ("0", 1), (0,), "\0" * 100_000])
async def test_an_invalid_token_is_not_sent(token: Any) -> None:
    async with reader() as reading:
        with pytest.raises(ValueError, match="token") as raised:
            await reading.wait_for(token)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1" * 1000, None, 10**400])
async def test_an_invalid_limit_is_not_sent(limit: Any) -> None:
    async with reader() as reading:
        for listing in (reading.sessions, reading.recent_sessions, reading.session("s").page):
            found = await outcome(_Call(listing, limit), "call", "-", "")
            if limit != 10**400:
                assert isinstance(found, WaypostError), repr(found)
                assert len(str(found)) < 500


class _Call:
    def __init__(self, listing: Any, limit: Any) -> None:
        self.call = lambda: listing(limit=limit)


PUBLISHER_CALLS = [each for each in public(Publisher) if each[0] != "flush"]


@pytest.mark.parametrize(("name", "parameter"), PUBLISHER_CALLS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad=BAD)
def test_a_publisher_accepts_no_text_that_a_worker_would_reject(name: str, parameter: str, bad: str) -> None:
    async def call() -> tuple[Any, int]:
        async with Publisher(NOWHERE) as publisher:
            found = await outcome(publisher, name, parameter, bad)
            accepted = publisher.stats().accepted
            await publisher.close(0)
            return found, accepted

    if parameter == "data" and not any("\ud800" <= each <= "\udfff" for each in bad):
        return  # data may hold any character
    found, accepted = asyncio.run(call())
    assert isinstance(found, InvalidCommandError), repr(found)
    judge(found, bad, cannot_be=True)
    assert accepted == 0


@pytest.mark.parametrize("endless", ["x" * 1_000_000, "\u202e" * 100_000, "\x1b[31m" * 50_000])
async def test_no_message_echoes_an_endless_argument(endless: str) -> None:
    async with Publisher(NOWHERE) as publisher, reader() as reading:
        found = [await outcome(publisher, *each, endless) for each in PUBLISHER_CALLS if each[1] != "data"]
        found += [await outcome(reading, *each, endless) for each in public(Reader)]
        found += [await outcome(reading.session("s"), *each, endless) for each in public(SessionReader)]
        manager = CheckpointManager("s")
        found += [
            await outcome(manager, *each, endless) for each in public(CheckpointManager) if each[1] != "data"
        ]
        await publisher.close(0)
    errors = [each for each in found if isinstance(each, Exception)]
    assert len(errors) > 20
    for each in errors:
        judge(each, endless, cannot_be=False)


@pytest.mark.parametrize(("name", "parameter"), public(CheckpointManager))
@settings(max_examples=15, deadline=None)
@given(bad=BAD)
def test_the_manager_judges_text_as_a_worker_does(name: str, parameter: str, bad: str) -> None:
    if parameter == "data" and not any("\ud800" <= each <= "\udfff" for each in bad):
        return  # data may hold any character
    found = asyncio.run(outcome(CheckpointManager("s"), name, parameter, bad))
    judge(found, bad, cannot_be=True)


OPTIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "publisher's servers": (lambda bad: Publisher(bad), "bootstrap_servers"),
    "publisher's prefix": (lambda bad: Publisher(NOWHERE, topic_prefix=bad), "prefix"),
    "publisher's source": (lambda bad: Publisher(NOWHERE, source=bad), "source"),
    "publisher's option": (lambda bad: Publisher(NOWHERE, kafka_options={"client_id": bad}), "client_id"),
    "publisher's on_full": (lambda bad: Publisher(NOWHERE, on_full=bad), "on_full"),
    "sync publisher's servers": (lambda bad: SyncPublisher(bad), "bootstrap_servers"),
    "subscriber's servers": (lambda bad: Subscriber(bad), "bootstrap_servers"),
    "subscriber's group": (lambda bad: Subscriber(NOWHERE, group=bad), "group"),
    "subscriber's prefix": (lambda bad: Subscriber(NOWHERE, topic_prefix=bad), "prefix"),
    "subscriber's names": (lambda bad: Subscriber(NOWHERE, names=[bad]), "filter"),
    "subscriber's sessions": (lambda bad: Subscriber(NOWHERE, sessions=[bad]), "filter"),
    "subscriber's types": (lambda bad: Subscriber(NOWHERE, types=[bad]), "filter"),
    "subscriber's option": (lambda bad: Subscriber(NOWHERE, kafka_options={"client_id": bad}), "client_id"),
    "reader's DSN": (lambda bad: Reader("postgresql://u:secret@h/" + bad), "DSN"),
    "reader's DSNs": (lambda bad: Reader(["postgresql://u:secret@h/" + bad]), "DSN"),
    "reader's tenant": (lambda bad: Reader(DSN, tenant=bad), "tenant"),
    "reader's schema": (lambda bad: Reader(DSN, schema=bad), "schema"),
    "reader's session": (lambda bad: reader().session(bad), "session id"),
    "manager's session": (lambda bad: CheckpointManager(bad), "session id"),
}


@pytest.mark.parametrize(("make", "named"), OPTIONS.values(), ids=OPTIONS)
@settings(max_examples=15, deadline=None)
@given(bad=BAD)
@example(bad="\0")
@example(bad="\ud800")
def test_what_is_made_with_text_that_no_server_takes_says_which(
    make: Callable[[str], Any], named: str, bad: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is judged below
        make(bad)
    judge(raised.value, bad, cannot_be=True)
    assert named in str(raised.value)


async def test_a_spool_whose_path_holds_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="spool contains a NUL"):
        Publisher(NOWHERE, spool="/tmp/a\0b")


@settings(max_examples=50, deadline=None)
@given(st.one_of(TEXT, st.tuples(ENDLESS, st.integers(1, 300_000)).map(lambda each: each[0] * each[1])))
def test_the_message_of_every_error_is_printable_and_bounded(text: str) -> None:
    for kind in WaypostError.__subclasses__():
        for error in (_made(kind, text), _made(kind, "before " + text)):
            assert len(str(error)) <= LONGEST_MESSAGE
            assert str(error).replace("\n", "").isprintable()


def _made(kind: type[WaypostError], text: str) -> WaypostError:
    """An error with this message, which stands last among what it is made of."""
    if kind is ResultTimeoutError:
        return ResultTimeoutError("c", text, "sent")
    parts = [
        each
        for each in inspect.signature(kind).parameters.values()
        if each.kind is each.POSITIONAL_OR_KEYWORD and each.default is each.empty
    ]
    return kind(*["c"] * (len(parts) - 1), text)
