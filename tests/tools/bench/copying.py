"""COPY alone: rows per second into the bare loop's table, over one connection, in a separate process."""

import time
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
from tests.tools.bench.bare import COLUMNS, TABLES
from tests.tools.bench.children import run_child, say
from tests.tools.bench.load import NAMES
from tests.tools.bench.plan import DATA_BYTES, SESSIONS
from tests.tools.bench.states import session_name, states


async def main(job: dict[str, Any]) -> None:
    """Make all rows, then copy them, one transaction for each batch."""
    data = [orjson.dumps(state) for state in states(DATA_BYTES)]
    at = datetime.now(UTC)
    rows = [
        (
            session_name(number % SESSIONS),
            number,
            NAMES[number % len(NAMES)],
            at,
            at,
            data[number % len(data)],
            "{}",
            False,
            f"{number:036d}",
        )
        for number in range(job["rows"])
    ]
    connection: Any = await asyncpg.connect(job["dsn"])
    await connection.execute(TABLES)
    batch = job["batch"]
    began = time.monotonic()
    for first in range(0, len(rows), batch):
        await connection.copy_records_to_table(
            "checkpoints", columns=COLUMNS, records=rows[first : first + batch]
        )
    say(rows_per_second=len(rows) / (time.monotonic() - began))
    await connection.close()


if __name__ == "__main__":
    run_child(main)
