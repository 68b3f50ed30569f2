"""A program written against the public names of 0.1. It is never edited: it shows that later versions still run it.

Its arguments are the addresses of Kafka and Postgres, a topic prefix and a directory for a spool. It prints one JSON
object with what it saw.
"""

import asyncio
import json
import sys

import waypost
from waypost.adapters import Backend, SessionFullError
from waypost.adapters.langgraph import WaypostSaver
from waypost.adapters.records import POLICY
from waypost.errors import ShardMapError
from waypost.publisher_options import PublisherOptions
from waypost.token_file import TokenFile

SERVERS, DSN, PREFIX, SPOOL = sys.argv[1:]
CREATE = "waypost.checkpoint.create"
seen = {}


async def publish():
    options: PublisherOptions = {"prefix": PREFIX, "options": {"client_id": "old"}, "source": "/old"}
    async with waypost.Publisher(SERVERS, **options) as publisher:
        await publisher.room()
        publisher.publish("old-b", CREATE, b'{"name":"raw","data":{"by":"hand"}}', command_id="c-1")
        await publisher.flush(30)
        again = await publisher.publish_and_wait(
            "old-b", CREATE, b'{"name":"raw","data":{"by":"hand"}}', command_id="c-1"
        )
        seen["again"] = again.type
        result = await publisher.create_and_wait("old-a", "first", {"step": 1}, {"kind": "x"})
        seen["result"] = [isinstance(result, waypost.WaitedResult), result.type, result.checkpoint_id]
        seen["accepted"] = result.accepted() is result
        partition, offset = result.token
        seen["token"] = [result.token == (partition, offset), isinstance(result.token, tuple)]
        rejected = await publisher.publish_and_wait("old-a", "waypost.checkpoint.pin", b'{"checkpoint_id":"old-a:9"}')
        try:
            rejected.accepted()
        except waypost.InvalidCommandError as error:
            seen["rejected"] = error.code
        publisher.pin("old-a", "old-a:1")
        seen["flushed"] = await publisher.flush(30)
        stats = publisher.stats()
        seen["delivered"] = stats.delivered == stats.accepted
    async with waypost.Publisher(SERVERS, prefix=PREFIX, spool=SPOOL) as publisher:
        publisher.create("old-a", "spooled", {"step": 2})
        await publisher.saved()
    return result.token


def publish_without_a_loop():
    with waypost.SyncPublisher(SERVERS, prefix=PREFIX, options={"client_id": "old"}, spool=SPOOL) as publisher:
        publisher.publish("old-c", CREATE, b'{"name":"sync","data":{}}')
        publisher.saved()
        return publisher.create_and_wait("old-c", "last", {"step": 3}).token


async def subscribe():
    events = waypost.Subscriber(
        SERVERS, prefix=PREFIX, options={"client_id": "old"}, group="old", types=["created"], from_beginning=True
    )
    deduplicator = waypost.Deduplicator()
    names = []
    async with events:
        async for event in events:
            with waypost.spans.continued_trace(event):
                repeated = deduplicator.seen(event)
            if not repeated and event.session_id.startswith("old-"):
                names.append(event.name)
                seen["event token"] = [isinstance(event.token, tuple), deduplicator.seen(event)]
            if len(names) == 5:
                break
    seen["events"] = sorted(names)


async def read(*tokens):
    async with waypost.Reader(DSN) as reader:
        for token in tokens:
            await reader.wait_for((token[0], token[1]), timeout=30)
        page = await reader.sessions(prefix="old-")
        seen["sessions"] = [info.session_id for info in page]
        seen["list"] = [len(page), page[0].session_id, page[-1].session_id, page == list(page), bool(page)]
        seen["more of a list"] = [len(page + [page[0]]), len(page.copy()), [info.session_id for info in page[1:]]]
        page.sort(key=lambda info: info.session_id, reverse=True)
        seen["sorted"] = page[0].session_id
        found, cursor = [], ""
        while some := await reader.sessions(prefix="old-", limit=2, cursor=cursor):
            found += some
            cursor = some[-1].session_id
        seen["paged"] = [info.session_id for info in found]
        seen["none"] = [await reader.sessions(prefix="nobody-") == [], not await reader.sessions(prefix="nobody-")]
        info = await reader.session_info("old-a")
        seen["info"] = [info.counter, info.checkpoints]
        recent = await reader.recent_sessions(prefix="old-")
        seen["recent"] = [isinstance(recent, waypost.SessionPage), len(recent.sessions), recent.cursor]
        session = reader.session("old-a")
        checkpoints = await session.page(limit=5)
        seen["page"] = [isinstance(checkpoints, waypost.Page), [one.name for one in checkpoints.checkpoints]]
        seen["rollback_to"] = await session.rollback_to("old-a:1")
        rows = await reader.fetch("session", "old-a")
        seen["rows"] = [rows[0]["counter"], len(await reader.fetch_all("sessions", "", "old-", "old.", 9))]
        try:
            await reader.wait_for((0, 10**9), timeout=0.1)
        except TimeoutError as error:
            seen["late"] = isinstance(error, waypost.WaypostError) or type(error) is TimeoutError
    async with waypost.Reader("postgresql://127.0.0.1:1/x") as reader:
        try:
            await reader.sessions()
        except OSError:
            seen["away"] = True


async def adapt():
    backend = Backend(SERVERS, DSN, prefix=PREFIX, publisher_options={"options": {"client_id": "old"}})
    async with backend:
        saver = WaypostSaver(backend)
        seen["thread"] = await saver.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
    seen["policy of adapters"] = POLICY["max_checkpoints"]


def in_memory():
    manager = waypost.CheckpointManager("memory", max_checkpoints=5, compress_after=3, keep_recent=1)
    first = manager.create("n", {"step": 1})
    seen["policy"] = [
        isinstance(manager.policy, waypost.Policy),
        manager.policy == waypost.Policy(max_checkpoints=5, compress_after=3, keep_recent=1),
        waypost.Policy().max_pins,
    ]
    seen["memory"] = [manager.rollback_to(first.id), len(manager), manager.get_latest().number]
    try:
        waypost.Policy(max_checkpoints=0)
    except ValueError as error:
        seen["bounds"] = error.code


tokens = [asyncio.run(publish()), publish_without_a_loop()]
asyncio.run(subscribe())
asyncio.run(read(*tokens))
asyncio.run(adapt())
in_memory()
seen["names"] = [TokenFile.__name__, issubclass(ShardMapError, waypost.WaypostError), SessionFullError.__name__]
print(json.dumps(seen))
