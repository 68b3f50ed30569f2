"""A process that commits large batches to partition 0 without end; says so before each. For a test to freeze."""

import asyncio
import sys

from tests.conformance.stores import MOMENT, PARTITIONS, Hand

from waypost.model.index import Entry, Session
from waypost_worker.partition.ports import Changes, OwnerError, Row
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.store import PostgresStore

ROWS = 1000


def large(session: Session) -> Changes:
    """So many new checkpoints of 1 KB; it takes a while to send them."""
    changes = Changes(sessions={session.session_id: (session, MOMENT)})
    for _ in range(ROWS):
        entry = Entry(session.counter + 1, "large", MOMENT, MOMENT, session.counter)
        session.counter += 1
        changes.puts[session.session_id, entry.number] = Row(
            session.session_id, entry, b"{}" + b" " * 1000, b"{}"
        )
    return changes


async def main(dsn: str) -> None:
    pool = await open_pool(dsn, size=1)
    store = PostgresStore(pool, 0)
    while True:
        try:
            hand = Hand(store, await store.acquire(PARTITIONS))
            stored = await store.load(["large"])
            session = stored.get("large", Session("large"))
            while True:
                changes = large(session)
                sys.stdout.write("committing\n")
                sys.stdout.flush()
                await hand.commit(changes)
        except OwnerError:
            pass


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
