"""The publisher's calls before Kafka: what is validated, what is stamped, and what nobody accepts."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
import pytest
from tests.support.timeouts import PATIENCE

from waypost import (
    BufferFullError,
    CommandResult,
    InvalidCommandError,
    NaiveDatetimeError,
    Publisher,
    PublisherClosedError,
    SyncPublisher,
    json_default,
)
from waypost.model.commands import Erase, Expire, Import
from waypost.model.limits import MAX_DATA_BYTES
from waypost.model.times import parse_micros
from waypost.publisher.calls import CommandMethods, split_import
from waypost.publisher.pending import Pending
from waypost.publisher.stamps import Clock, new_id
from waypost.wire.decode import parse_body
from waypost.wire.encode import import_body
from waypost.wire.event_types import EventType

NOWHERE = "127.0.0.1:1"


class Accepting(CommandMethods):
    """Keeps what it accepts."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: list[Pending] = []

    def _accept(self, *pending: Pending) -> None:
        self.accepted += pending


def item(number: int, size: int = 10) -> dict[str, Any]:
    data = {"x": "d" * size}
    return {"id": f"s:{number}", "name": "n", "timestamp": "2026-11-24T08:24:59Z", "data": data}


ITSELF: dict[str, Any] = {}
ITSELF["me"] = ITSELF

BAD: dict[str, tuple[Callable[[CommandMethods], object], str]] = {
    "a session id that is no string": (lambda p: p.create(7, "n", {}), "session id"),  # type: ignore[arg-type]
    "an empty session id": (lambda p: p.clear(""), "session id is empty"),
    "a long session id": (lambda p: p.create("s" * 201, "n", {}), "201 characters"),
    "a control character": (lambda p: p.create("s\n", "n", {}), "control character"),
    "an empty name": (lambda p: p.create("s", "", {}), "name is empty"),
    "data that is no dict": (lambda p: p.create("s", "n", [1]), "data must be a dict"),  # type: ignore[arg-type]
    "NaN": (lambda p: p.create("s", "n", {"a": {"b": float("nan")}}), "data.a.b"),
    "a datetime": (lambda p: p.create("s", "n", {"at": [datetime.now(UTC)]}), r"data.at\[0\]"),
    "what holds itself": (lambda p: p.create("s", "n", ITSELF), r"^data(\.me)+\.m … (\.me)+: nests deeper"),
    "bytes in metadata": (lambda p: p.create("s", "n", {}, {"b": b""}), "metadata.b"),
    "large data": (lambda p: p.create("s", "n", {"x": "d" * MAX_DATA_BYTES}), "at most 921600"),
    "large metadata": (lambda p: p.create("s", "n", {}, {"x": "d" * 17_000}), "at most 16384"),
    "U+0000 in metadata": (lambda p: p.create("s", "n", {}, {"x": "\0"}), r"U\+0000"),
    "a year before 1": (
        lambda p: p.create("s", "n", {}, timestamp=datetime.fromisoformat("0001-01-01T00:00+01:00")),
        "years 1 to 9999",
    ),
    "a checkpoint id that is no string": (lambda p: p.pin("s", 3), "checkpoint_id"),  # type: ignore[arg-type]
    "an unknown field of the policy": (
        lambda p: p.configure("s", max_checkpoint=7),
        r"max_checkpoint: unknown field. Did you mean max_checkpoints\?",
    ),
    "a policy out of bounds": (lambda p: p.configure("s", max_checkpoints=1), "max_checkpoints"),
    "an import that is no list": (lambda p: p.import_checkpoints("s", "{}"), "a JSON list"),
    "an import that is no JSON": (lambda p: p.import_checkpoints("s", "[1"), "not JSON"),
    "an import with a wrong item": (lambda p: p.import_checkpoints("s", '[{"id":"s:1"}]'), "checkpoints.0"),
    "an import with an unknown mode": (
        lambda p: p.import_checkpoints("s", orjson.dumps([item(1)]), "merge"),  # type: ignore[arg-type]
        "on_conflict",
    ),
    "a timestamp that is no datetime": (
        lambda p: p.create("s", "n", {}, timestamp="2026-11-24T08:24:59Z"),  # type: ignore[arg-type]
        "timestamp must be a datetime",
    ),
    "a command type that is no string": (
        lambda p: p.publish_raw("s", None, b"{}"),  # type: ignore[arg-type]
        "command type must be a string",
    ),
    "a command type that is no UTF-8": (lambda p: p.publish_raw("s", "\ud800", b"{}"), "lone surrogate"),
    "a body that is text": (
        lambda p: p.publish_raw("s", EventType.IMPORT, "{}"),  # type: ignore[arg-type]
        "body must be bytes",
    ),
    "a command id that is no string": (
        lambda p: p.publish_raw("s", EventType.IMPORT, b"{}", command_id=7),  # type: ignore[arg-type]
        "command id must be a string",
    ),
    "an empty command id": (
        lambda p: p.publish_raw("s", EventType.IMPORT, b"{}", command_id=""),
        "command id is empty",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_at_the_call_and_leaves_nothing_behind(what: str) -> None:
    publisher = Accepting()
    call, says = BAD[what]
    with pytest.raises(InvalidCommandError, match=says):
        call(publisher)
    assert publisher.accepted == []


async def test_a_body_to_wait_for_is_checked_too() -> None:
    async with Publisher(NOWHERE) as publisher:
        with pytest.raises(InvalidCommandError, match="body must be bytes"):
            await publisher.publish_and_wait("s", EventType.IMPORT, "{}")  # type: ignore[arg-type]
        assert publisher.stats().accepted == 0


async def _told(command_id: str, error: BaseException | None) -> None: ...


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source": ""}, "source is empty"),
        ({"source": 7}, "source must be a string"),
        ({"on_delivery": "print"}, "on_delivery"),
        ({"on_delivery": _told}, "not awaited"),
        ({"default": "str"}, "default must be a plain function"),
        ({"default": _told}, "not awaited"),
    ],
)
def test_what_no_publisher_can_work_with_is_refused_when_it_is_made(
    options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Publisher(NOWHERE, **options)


@pytest.mark.parametrize("options", [{"bogus": 1}, {"compression_type": "rar"}])
async def test_options_that_the_kafka_client_does_not_take_are_refused_at_the_start(
    options: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="the Kafka client does not accept these options"):
        await Publisher(NOWHERE, kafka_options=options).start()
    with pytest.raises(ValueError, match="the Kafka client does not accept these options"):
        await asyncio.to_thread(SyncPublisher, NOWHERE, kafka_options=options)


def test_a_naive_timestamp_is_refused() -> None:
    publisher = Accepting()
    with pytest.raises(NaiveDatetimeError):
        publisher.create("s", "n", {}, timestamp=datetime(2026, 11, 24))
    assert publisher.accepted == []


async def test_every_publisher_converts_what_json_lacks_with_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bodies: list[bytes] = []

    async def answered(pending: Pending, *_: Any) -> CommandResult:
        bodies.append(pending.value)
        return CommandResult(EventType.CREATED, {})

    day, data, metadata = (
        date(2026, 11, 30),
        {"at": {"last": date(2026, 11, 30)}},
        {"day": date(2026, 11, 30)},
    )
    plain = Publisher(NOWHERE, default=json_default)
    threaded = await asyncio.to_thread(SyncPublisher, NOWHERE, default=date.isoformat)
    for publisher in (plain, threaded):
        monkeypatch.setattr(publisher, "_accept", lambda pending: bodies.append(pending.value))
        publisher.create("s", "n", data, metadata)
    for each in (plain, threaded._publisher):
        monkeypatch.setattr(each, "_publish_and_wait", answered)
    await plain.create_and_wait("s", "n", data, metadata)
    await asyncio.to_thread(threaded.create_and_wait, "s", "n", data, metadata)
    await asyncio.to_thread(threaded.close)
    assert bodies == 4 * [
        b'{"name":"n","metadata":{"day":"%b"},"data":{"at":{"last":"%b"}}}' % (2 * (str(day).encode(),))
    ]


def test_every_command_gets_its_own_id_and_the_time() -> None:
    publisher = Accepting()
    before = datetime.now(UTC)
    ids = [publisher.create("s", "n", {}) for _ in range(1000)]
    after = datetime.now(UTC)
    assert len(set(ids)) == 1000
    assert [pending.command_id for pending in publisher.accepted] == ids
    taken = [parse_micros(pending.time.decode()) for pending in publisher.accepted]
    assert taken == sorted(taken)
    assert before.timestamp() * 1e6 - 1 <= taken[0]
    assert taken[-1] <= after.timestamp() * 1e6 + 1


def test_ids_are_random_uuids_in_canonical_text() -> None:
    for _ in range(200):
        text = new_id()
        parsed = UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, "specified in RFC 4122")


def test_the_clock_gives_canonical_text_also_over_the_turn_of_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    moments = [1_795_508_699_999_999_999, 1_795_508_700_000_000_000, 1_795_508_700_000_001_234]
    monkeypatch.setattr("waypost.publisher.stamps.time", SimpleNamespace(time_ns=lambda: moments.pop(0)))
    assert [clock.now() for _ in range(3)] == [
        b"2026-11-24T08:24:59.999999Z",
        b"2026-11-24T08:25:00.000000Z",
        b"2026-11-24T08:25:00.000001Z",
    ]


def test_a_given_timestamp_is_what_the_command_carries() -> None:
    publisher = Accepting()
    publisher.create("s", "n", {}, timestamp=datetime.fromisoformat("2026-11-24T10:00:00.5+02:00"))
    assert publisher.accepted[0].time == b"2026-11-24T08:00:00.500000Z"


def test_the_active_trace_goes_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(is_valid=True, trace_id=0xABC, span_id=0xDEF, trace_flags=1)
    trace = ModuleType("opentelemetry.trace")
    trace.get_current_span = lambda: SimpleNamespace(get_span_context=lambda: context)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", trace)
    publisher = Accepting()
    publisher.clear("s")
    context.is_valid = False
    publisher.clear("s")
    assert [pending.traceparent for pending in publisher.accepted] == [
        b"00-00000000000000000000000000000abc-0000000000000def-01",
        None,
    ]


def test_an_erasure_has_an_empty_body() -> None:
    publisher = Accepting()
    publisher.erase("s")
    (pending,) = publisher.accepted
    assert (pending.session_id, pending.command_type) == ("s", EventType.ERASE)
    assert parse_body(pending.command_type, pending.value) == Erase()
    with pytest.raises(InvalidCommandError):
        publisher.erase("")
    assert len(publisher.accepted) == 1


def test_an_expiry_says_since_when_the_session_must_be_idle() -> None:
    publisher = Accepting()
    publisher.expire("s", datetime.fromisoformat("2026-11-24T10:00:00+02:00"), pinned=True)
    (pending,) = publisher.accepted
    assert pending.command_type == EventType.EXPIRE
    assert parse_body(pending.command_type, pending.value) == Expire(1_795_507_200_000_000, pinned=True)
    with pytest.raises(NaiveDatetimeError):
        publisher.expire("s", datetime(2026, 11, 24))
    assert len(publisher.accepted) == 1


def test_a_long_import_is_split_and_every_part_is_a_command_that_the_worker_takes() -> None:
    items = [item(number, size) for number, size in enumerate([10, 400_000, 400_000, 400_000, 900_000, 5], 1)]
    publisher = Accepting()
    ids = publisher.import_checkpoints("s", orjson.dumps(items, option=orjson.OPT_INDENT_2).decode())
    assert len(ids) == len(publisher.accepted) == 4
    placed = []
    for pending in publisher.accepted:
        assert len(pending.value) < 1_000_000
        action = parse_body(pending.command_type, pending.value)
        assert isinstance(action, Import)
        placed += [found.id for found in action.checkpoints]
    assert placed == [one["id"] for one in items]


def test_an_import_of_many_small_checkpoints_is_split_by_their_number() -> None:
    parts = split_import(orjson.dumps([item(number, 0) for number in range(10_001)]))
    assert [len(part) for part in parts] == [10_000, 1] or max(len(part) for part in parts) < 10_000
    assert sum(len(part) for part in parts) == 10_001


def test_an_empty_import_is_one_command() -> None:
    assert [import_body(part) for part in split_import(" [ ] ")] == [
        b'{"checkpoints":[],"on_conflict":"skip"}'
    ]


def test_an_import_that_fails_in_a_later_part_says_where_and_is_not_accepted_at_all() -> None:
    publisher = Accepting()
    wrong = {**item(3), "name": ""}
    with pytest.raises(InvalidCommandError, match=r"number 1 of the list on: checkpoints\.1\.name"):
        publisher.import_checkpoints("s", orjson.dumps([item(1, 890_000), item(2, 20_000), wrong]))
    assert publisher.accepted == []


def test_a_publisher_that_was_not_started_accepts_nothing() -> None:
    with pytest.raises(PublisherClosedError, match="not started"):
        Publisher(NOWHERE).create("s", "n", {})


async def test_a_closed_publisher_accepts_nothing() -> None:
    publisher = await Publisher(NOWHERE).start()
    assert await publisher.close() == 0
    with pytest.raises(PublisherClosedError, match="closed"):
        publisher.create("s", "n", {})


def test_a_publisher_whose_loop_was_closed_underneath_it_says_what_is_lost_and_accepts_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.new_event_loop()
    publisher = loop.run_until_complete(Publisher(NOWHERE).start())
    publisher.create("s", "n", {})
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
    assert "1 accepted commands were not acknowledged" in caplog.text
    with pytest.raises(PublisherClosedError, match="event loop"):
        publisher.create("s", "n", {})


async def test_a_wait_for_a_loop_that_stops_meanwhile_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost.publisher.loops._LOOK_SECONDS", 0.01)
    loop = asyncio.new_event_loop()
    publisher = await asyncio.to_thread(lambda: loop.run_until_complete(Publisher(NOWHERE).start()))
    runner = threading.Thread(target=loop.run_forever)
    runner.start()
    asyncio.run_coroutine_threadsafe(_created(publisher), loop).result()
    waiting = asyncio.create_task(publisher.flush())
    await asyncio.sleep(0)
    loop.call_soon_threadsafe(loop.stop)
    await asyncio.to_thread(runner.join)
    with pytest.raises(PublisherClosedError, match="stopped before the call was done"):
        async with asyncio.timeout(PATIENCE):
            await waiting
    await asyncio.to_thread(lambda: loop.run_until_complete(publisher.close(0)))
    loop.close()


async def _created(publisher: Publisher) -> None:
    publisher.create("s", "n", {})


LEFT_OPEN = f"""
import asyncio
from waypost import Publisher
loop = asyncio.new_event_loop()
publisher = loop.run_until_complete(Publisher({NOWHERE!r}).start())
for _ in range(7):
    publisher.create("s", "n", {{}})
"""


def test_losses_of_a_program_that_ends_with_an_open_publisher_are_reported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "7 accepted commands were not acknowledged by Kafka" in done.stderr


async def test_waiting_in_a_plain_call_is_not_offered_on_an_event_loop() -> None:
    with pytest.raises(ValueError, match="drain"):
        Publisher(NOWHERE, on_full="block")


async def test_a_full_buffer_is_never_silent() -> None:
    told: dict[str, BaseException | None] = {}
    async with Publisher(NOWHERE, max_buffer_count=2, on_delivery=told.__setitem__) as publisher:
        ids = [publisher.create("s", "n", {}), publisher.create("s", "n", {})]
        with pytest.raises(BufferFullError):
            publisher.create("s", "n", {})
        assert publisher.stats().accepted == publisher.stats().buffered == 2
        assert await publisher.close(timeout=0) == 2
    assert list(told) == ids
    assert all("left when the publisher closed" in str(error) for error in told.values())


async def test_drop_oldest_reports_which_command_is_gone() -> None:
    told: dict[str, BaseException | None] = {}
    publisher = await Publisher(
        NOWHERE, max_buffer_count=1, on_full="drop_oldest", on_delivery=told.__setitem__
    ).start()
    first = publisher.create("s", "n", {})
    second = publisher.create("s", "n", {})
    assert list(told) == [first]
    assert "dropped" in str(told[first])
    assert publisher.stats().dropped == 1
    assert await publisher.close(timeout=0) == 1
    assert list(told) == [first, second]


async def test_a_delivery_callback_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(command_id: str, error: BaseException | None) -> None:
        raise RuntimeError("mine")

    publisher = await Publisher(NOWHERE, max_buffer_count=1, on_full="drop_oldest", on_delivery=fail).start()
    publisher.create("s", "n", {})
    publisher.create("s", "n", {})
    assert publisher.stats().buffered == 1
    await publisher.close(timeout=0)
    assert "the delivery callback failed" in caplog.text


def test_blocking_calls_wait_no_longer_than_their_timeout() -> None:
    with SyncPublisher(NOWHERE, max_buffer_count=1, on_full="block", block_timeout=0.01) as publisher:
        publisher.create("s", "n", {})
        with pytest.raises(BufferFullError):
            publisher.create("s", "n", {})
        assert publisher.close(timeout=0) == 1


FORKED = f"""
import os, sys
from waypost import SyncPublisher, PublisherClosedError
publisher = SyncPublisher({NOWHERE!r})
publisher.create("s", "n", {{}})
child = os.fork()
if child == 0:
    for call in (lambda: publisher.create("s", "n", {{}}), publisher.flush, publisher.close):
        try:
            call()
        except PublisherClosedError:
            continue
        os._exit(1)
    sys.exit(0)  # what runs at exit must not wait for the parent's thread
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert publisher.stats().buffered == 1
print(publisher.close(0))
"""


def test_a_forked_child_gets_an_error_and_the_parent_continues() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_ids_of_a_forked_child_are_its_own() -> None:
    reading, writing = os.pipe()
    new_id()
    child = os.fork()
    if child == 0:
        os.write(writing, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode() != new_id()
    os.close(reading)
    os.close(writing)
