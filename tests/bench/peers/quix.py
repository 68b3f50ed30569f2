"""The benchmark's job on Quix Streams, exactly once: one result for each create, sessions in its state store.

Written and set up as its documentation advises: a stateful function on a streaming dataframe, state with its
changelog, transactions committed every 100 ms (as Kafka Streams does by default). A process of its own.

What it lacks beside Waypost: a database to query, commands other than create, retries that count once, names,
pins and ages.
"""

import json
import sys
import tempfile
import threading
from datetime import UTC, datetime
from typing import Any

from quixstreams import Application

CAP = 100


def apply(command: dict[str, Any], key: Any, timestamp: int, headers: Any, state: Any) -> dict[str, Any]:
    """The result of one create; retention is the plain cap."""
    session = key.decode() if isinstance(key, bytes) else key
    counter, lowest = state.get("range", (0, 1))
    counter += 1
    state.set(f"checkpoint:{counter}", command["data"])
    removed = []
    if counter - lowest >= CAP:
        state.delete(f"checkpoint:{lowest}")
        removed.append(f"{session}:{lowest}")
        lowest += 1
    state.set("range", (counter, lowest))
    sent = dict(headers)
    return {
        "session_id": session,
        "checkpoint": {
            "id": f"{session}:{counter}",
            "name": command["name"],
            "timestamp": sent["ce_time"].decode(),
            "recorded_at": datetime.fromtimestamp(timestamp / 1000, UTC).isoformat(),
            "data": command["data"],
            "metadata": {},
            "pinned": False,
        },
        "removed": removed,
        "command": {"id": sent["ce_id"].decode()},
    }


def main(job: dict[str, Any]) -> None:
    """Work until standard input ends."""
    with tempfile.TemporaryDirectory() as directory:
        app = Application(
            broker_address=job["bootstrap"],
            consumer_group=f"{job['prefix']}-quix",
            auto_offset_reset="earliest",
            processing_guarantee="exactly-once",
            commit_interval=0.1,
            consumer_poll_timeout=0.05,
            state_dir=directory,
            loglevel="WARNING",
        )
        commands = app.topic(f"{job['prefix']}.commands", key_deserializer="str", value_deserializer="json")
        results = app.topic(f"{job['prefix']}.results", key_serializer="str", value_serializer="json")
        frame = app.dataframe(commands)
        frame = frame.apply(apply, stateful=True, metadata=True)
        frame.to_topic(results)

        def until_the_end() -> None:
            while sys.stdin.readline():
                pass
            app.stop()

        threading.Thread(target=until_the_end, daemon=True).start()
        print(json.dumps({"state": "ready"}), flush=True)
        app.run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
