"""A session read back right after it was written: by name, by metadata, in pages, as a file.

Needs pip install 'waypost[reader]', and a `waypost dev` that runs in the current directory.
"""

import asyncio
import tempfile

import waypost


async def main() -> None:
    """Write five steps, then look at them in several ways."""
    async with (
        waypost.Publisher() as publisher,
        waypost.Reader() as reader,
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
