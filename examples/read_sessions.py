"""A session read back right after it was written: by name, by metadata, in pages, as a file.

Needs pip install 'waypost[reader]', and a running `waypost dev`, whose addresses are expected in
WAYPOST_BOOTSTRAP_SERVERS and WAYPOST_POSTGRES_DSN.
"""

import asyncio
import os
import tempfile

import waypost

SERVERS = os.environ["WAYPOST_BOOTSTRAP_SERVERS"]
PREFIX = os.environ.get("WAYPOST_TOPIC_PREFIX", "waypost")


async def main() -> None:
    """Write five steps, then look at them in several ways."""
    async with (
        waypost.Publisher(SERVERS, topic_prefix=PREFIX) as publisher,
        waypost.Reader(os.environ["WAYPOST_POSTGRES_DSN"]) as reader,
    ):
        for step in range(4):
            publisher.create("team-a/run-1", "step", {"step": step}, {"even": step % 2 == 0})
        last = await publisher.create_and_wait("team-a/run-1", "done", {"answer": 42})
        await reader.wait_for(last.token)

        session = reader.session("team-a/run-1")
        latest = await session.get_latest()
        print("latest:", latest and (latest.id, latest.name, latest.data))
        even = await session.get_all(name="step", metadata={"even": True})
        print("even steps:", [checkpoint.data["step"] for checkpoint in even])

        page = await session.page(limit=2, newest_first=True)
        while page.checkpoints:
            print("page:", [checkpoint.id for checkpoint in page.checkpoints])
            if page.cursor is None:
                break
            page = await session.page(limit=2, newest_first=True, cursor=page.cursor)

        recent = await reader.recent_sessions(prefix="team-a/")
        print("active sessions:", [(info.session_id, info.checkpoint_count) for info in recent.sessions])

        with tempfile.TemporaryFile() as file:
            async for piece in session.export_stream():
                file.write(piece)
            print("exported:", file.tell() > 500)


asyncio.run(main())
