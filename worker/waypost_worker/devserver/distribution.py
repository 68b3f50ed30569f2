"""Prepare a Kafka that starts quickly: jars, format checkpoint and class cache, once per machine.

Owns the files that are derived from the jars, next to them in the cache. The class cache comes from a training run: a
temporary broker starts, gets the same requests as at every start, and stops.
"""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path

from waypost_worker.devserver.errors import DevServerError, log_tail
from waypost_worker.devserver.jars import (
    OnProgress,
    distribution_directory,
    ensure_jars,
    locked_jars,
    no_progress,
)
from waypost_worker.devserver.jvm import FAST_START, Runtime, java_version
from waypost_worker.devserver.locks import exclusive, workspace
from waypost_worker.devserver.node import (
    KafkaNode,
    default_properties,
    new_id,
    wait_until_ready,
    write_properties,
)
from waypost_worker.devserver.ports import Port
from waypost_worker.devserver.process import SupervisedProcess

FORMAT_SECONDS = 60.0
TRAINING_SECONDS = 120.0


def prepare(progress: OnProgress = no_progress) -> Runtime:
    """Everything that a broker needs, created if it is missing; cheap after the first time.

    Raises:
        DevServerError: a download or Kafka's format tool failed, or the broker doesn't start.
    """
    steps = len(locked_jars()) + 2
    jars = ensure_jars(lambda done, _total, name: progress(done, steps, name))
    runtime = Runtime(tuple(jars))
    root = distribution_directory()
    checkpoint = root / "bootstrap.checkpoint"
    class_cache = root / f"classes-{java_version()}.aot"
    training_log = class_cache.with_suffix(".log")
    with exclusive(root / "prepare.lock"):
        if not checkpoint.exists():
            progress(steps - 2, steps, "format checkpoint")
            _format_once(runtime, checkpoint)
        runtime = replace(runtime, bootstrap_checkpoint=checkpoint)
        if not training_log.exists():
            progress(steps - 1, steps, "class cache (some ten seconds, once)")
            _train(runtime, class_cache, training_log)
            progress(steps, steps, "ready")
    # A training that gave nothing has left its log; brokers start without the cache then.
    return replace(runtime, class_cache=class_cache) if class_cache.exists() else runtime


def _format_once(runtime: Runtime, checkpoint: Path) -> None:
    """Have Kafka's own tool format a directory, and keep the checkpoint that it writes."""
    with workspace(checkpoint.parent / "format") as work:
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
        _share(checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)


def _train(runtime: Runtime, class_cache: Path, log: Path) -> None:
    """Record what a broker loads in its first second, so that others start in half the time."""
    properties = default_properties(1)
    with workspace(class_cache.parent / "training") as work:
        output = work / "classes.aot"
        node = KafkaNode(1, work, Port(), runtime, FAST_START)
        try:
            node.configure(
                new_id(),
                {**properties, "controller.quorum.voters": node.voter},
                jvm_options=[f"-XX:AOTCacheOutput={output}"],
            )
            node.launch()
            wait_until_ready([node], properties, TRAINING_SECONDS)
            # The JVM writes the cache before it ends.
            node.terminate()
            node.wait(TRAINING_SECONDS)
        finally:
            node.stop()
            node.release()
        if output.exists():
            _share(output)
            output.replace(class_cache)
        _share(node.log_path)
        node.log_path.replace(log)


def _share(path: Path) -> None:
    """Let others read what a server wrote for itself alone: a cache may serve all users of a machine."""
    path.chmod(0o644)
