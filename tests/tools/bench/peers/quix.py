"""The benchmark's job on Quix Streams, exactly once: one result for each create, sessions in its state store.

Written and set up as its documentation advises: a stateful function on a streaming dataframe, state with its changelog,
transactions committed every 100 ms (as Kafka Streams does by default). Runs in a separate process.

Compared with Waypost, it lacks a database to query, commands other than create, retries that count once, names, pins
and ages.
"""

import json
import subprocess
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


def several(job: dict[str, Any], processes: int) -> None:
    """Return this many of these, which share the partitions, each in its own process with its own state directory."""
    program = [sys.executable, "-m", "tests.tools.bench.peers.quix", json.dumps({**job, "processes": 1})]
    children = [
        subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)
    ]
    try:
        for child in children:
            if child.stdout is None or not child.stdout.readline():
                raise SystemExit(f"process {child.pid} of Quix Streams ended before it was ready")
        print(json.dumps({"state": "ready"}), flush=True)
        while sys.stdin.readline():
            pass
    finally:
        for child in children:
            child.communicate()  # closes their standard input, which ends them


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if (count := asked.get("processes", 1)) > 1:
        several(asked, count)
    else:
        main(asked)
