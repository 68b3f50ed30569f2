"""Kafka Streams as a child process: its jars, the compiling of Peer.java, and the command that runs it.

Neither Java nor Maven is needed on the host: the JRE is that of the embedded Kafka, the compiler Eclipse's.

    python -m tests.tools.bench.peers.streams --relock

resolves the jars again and rewrites streams.lock.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

from waypost_worker.devserver.jars import ensure_jars, relock
from waypost_worker.devserver.jvm import THROUGHPUT, Runtime, java

ROOTS: Final = (
    "org.apache.kafka:kafka-streams:4.3.1",
    "org.slf4j:slf4j-simple:2.0.17",
    "org.eclipse.jdt:ecj:3.42.0",
)
LOCK: Final = Path(__file__).with_name("streams.lock")
_SOURCE: Final = Path(__file__).with_name("Peer.java")


def compiled(directory: Path) -> Runtime:
    """The class path with Peer, compiled into ``directory``. CalledProcessError if it does not compile."""
    jars = ensure_jars(lock_file=LOCK)
    compiler = next(jar for jar in jars if jar.name.startswith("ecj-"))
    path = ":".join(str(jar) for jar in jars)
    command = [java(), "-jar", compiler, "-21", "-nowarn", "-cp", path, "-d", directory, _SOURCE]
    subprocess.run([str(part) for part in command], check=True)
    return Runtime((directory, *(jar for jar in jars if jar != compiler)))


def command(runtime: Runtime, bootstrap: str, prefix: str, threads: int, scratch: Path) -> list[str]:
    """The command line of one instance."""
    state = scratch / prefix
    arguments = [bootstrap, prefix, str(threads), str(state)]
    quiet = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
    return runtime.command("Peer", arguments, profile=THROUGHPUT, scratch=scratch, extra=quiet)


if __name__ == "__main__":
    if sys.argv[1:] != ["--relock"]:
        raise SystemExit("usage: python -m tests.tools.bench.peers.streams --relock")
    print(f"{LOCK.name}: {len(relock(LOCK, ROOTS))} jars")
