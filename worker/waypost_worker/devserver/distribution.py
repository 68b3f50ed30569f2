"""Makes a Kafka that can be started at once: jars, format checkpoint and class cache, once per machine.

Owns what is derived from the jars and kept beside them in the cache. The class cache comes from a
training run: a throw-away broker that starts, is asked what every start is asked, and stops.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

from waypost_worker.devserver.errors import DevServerError, log_tail
from waypost_worker.devserver.jars import Progress, distribution_directory, ensure_jars, no_progress
from waypost_worker.devserver.jvm import FAST_START, Runtime
from waypost_worker.devserver.locks import exclusive
from waypost_worker.devserver.node import new_id, write_properties
from waypost_worker.devserver.process import SupervisedProcess

FORMAT_SECONDS = 60.0


def prepare(progress: Progress = no_progress) -> Runtime:
    """Whatever a broker needs, made where it is missing; cheap afterwards.

    Raises:
        DevServerError: a download or Kafka's format tool failed.
    """
    runtime = Runtime(tuple(ensure_jars(progress)))
    root = distribution_directory()
    checkpoint = root / "bootstrap.checkpoint"
    with exclusive(root / "prepare.lock"):
        if not checkpoint.exists():
            _format_once(runtime, checkpoint)
    return replace(runtime, bootstrap_checkpoint=checkpoint)


def _format_once(runtime: Runtime, checkpoint: Path) -> None:
    """Have Kafka's own tool format a directory, and keep the checkpoint that it writes."""
    with tempfile.TemporaryDirectory(prefix="format-", dir=checkpoint.parent) as name:
        work = Path(name)
        configuration = work / "server.properties"
        write_properties(
            configuration,
            {
                "process.roles": "broker,controller",
                "node.id": "1",
                "controller.quorum.voters": "1@127.0.0.1:1",
                "listeners": "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:1",
                "controller.listener.names": "CONTROLLER",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "log.dirs": str(work / "data"),
            },
        )
        log = work / "format.log"
        tool = SupervisedProcess(
            runtime.command(
                "kafka.tools.StorageTool",
                ["format", "-t", new_id(), "-c", str(configuration)],
                profile=FAST_START,
                scratch=work,
            ),
            log=log,
            stop=((signal.SIGTERM, 2.0),),
        )
        if tool.wait(FORMAT_SECONDS) != 0:
            raise DevServerError(
                f"Kafka's format tool failed with exit code {tool.exit_code}. Nothing was started. "
                f"{log_tail(log)}"
            )
        shutil.move(work / "data" / "bootstrap.checkpoint", checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)
