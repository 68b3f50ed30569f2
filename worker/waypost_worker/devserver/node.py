"""One Kafka process: broker and controller in one JVM, with its own directory and ports.

Owns the node's configuration, its formatted data directory and its process, and the wait for nodes to come up. Knows
its peers only as addresses; kafka.py makes them a cluster.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from waypost_worker.devserver.errors import DevServerError, log_tail
from waypost_worker.devserver.jvm import JvmProfile, Runtime
from waypost_worker.devserver.ports import HOST, Port
from waypost_worker.devserver.process import StopSteps, SupervisedProcess
from waypost_worker.devserver.readiness import Readiness

STOP: StopSteps = ((signal.SIGTERM, 8.0),)
POLL_SECONDS = 0.02


def default_properties(nodes: int) -> dict[str, str]:
    """Broker properties for a cluster of `nodes` on one machine: replicated where it can be, small, quick."""
    replicas = str(min(nodes, 3))
    in_sync = "2" if nodes >= 3 else "1"
    return {
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.num.partitions": "3",
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": "3",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        # An agent that dies with a transaction open holds its partition up for no longer; the default of clients.
        "transaction.max.timeout.ms": "60000",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # A group forms as soon as its members are there.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A killed broker can register again once its session has ended; 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # The cleaner would take 128 MB of heap.
        "log.cleaner.dedupe.buffer.size": "4194304",
    }


class KafkaNode:
    """A Kafka process that can be started, stopped, killed and suspended; same ports and data after."""

    def __init__(
        self,
        node_id: int,
        directory: Path,
        port: Port,
        runtime: Runtime,
        profile: JvmProfile,
        listeners: Mapping[str, str] | None = None,
    ) -> None:
        """Reserve its other ports; nothing starts yet.

        Args:
            node_id: from 1.
            directory: its state directory.
            port: client port, which the node gives up in the end.
            runtime: jars and what goes with them.
            profile: the JVM's settings.
            listeners: further listeners by name, each with its protocol.
        """
        self.node_id = node_id
        self._directory = directory
        self._runtime = runtime
        self._profile = profile
        self._client_port = port
        self._controller_port = Port()
        self._protocols = dict(listeners or {})
        self._listeners = {name: Port() for name in self._protocols}
        self._process: SupervisedProcess | None = None
        self._lock_fd: int | None = None
        self._jvm_options: Sequence[str] = ()

    @property
    def port(self) -> int:
        """The port for clients, on 127.0.0.1."""
        return self._client_port.number

    def listener_port(self, name: str) -> int:
        """The port of a further listener."""
        return self._listeners[name].number

    @property
    def voter(self) -> str:
        """This node as an entry of controller.quorum.voters."""
        return f"{self.node_id}@{HOST}:{self._controller_port.number}"

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        if self._process is None:
            raise DevServerError(f"Kafka node {self.node_id} has no process: start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether the JVM is alive (even if suspended)."""
        return self._process is not None and self._process.running

    @property
    def exit_code(self) -> int | None:
        """Exit code of the JVM that ran last, 128 + n after signal n; None while it runs."""
        return None if self._process is None else self._process.exit_code

    @property
    def log_path(self) -> Path:
        """The broker's log, appended to by every start."""
        return self._directory / "kafka.log"

    @property
    def data_directory(self) -> Path:
        """Kafka's log.dirs."""
        return self._directory / "data"

    @property
    def cluster_id(self) -> str | None:
        """The cluster that the data directory belongs to, or None where it is new."""
        try:
            lines = (self.data_directory / "meta.properties").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None
        return dict(line.partition("=")[::2] for line in lines).get("cluster.id")

    def configure(
        self,
        cluster_id: str,
        properties: Mapping[str, str],
        *,
        lock_fd: int | None = None,
        jvm_options: Sequence[str] = (),
    ) -> None:
        """Write the configuration, and format the data directory where it is new.

        Args:
            cluster_id: as from `new_id()`.
            properties: broker properties besides those that are this node's own.
            lock_fd: lock that the process holds while it lives.
            jvm_options: further options of the JVM.
        """
        self._lock_fd = lock_fd
        self._jvm_options = jvm_options
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        ports = {"PLAINTEXT": self.port, **{name: port.number for name, port in self._listeners.items()}}
        advertised = ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **self._protocols}
        own = {
            "process.roles": "broker,controller",
            "node.id": str(self.node_id),
            "listeners": f"{advertised},CONTROLLER://{HOST}:{self._controller_port.number}",
            "advertised.listeners": advertised,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "log.dirs": str(self.data_directory),
        }
        write_properties(self._configuration, {**properties, **own})
        if self.cluster_id is None:
            self._format(cluster_id)

    def launch(self) -> None:
        """Start the JVM; it is not ready yet when this returns."""
        scratch = self._directory / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        self._process = SupervisedProcess(
            self._runtime.command(
                "kafka.Kafka",
                [str(self._configuration)],
                profile=self._profile,
                scratch=scratch,
                extra=self._jvm_options,
            ),
            log=self.log_path,
            stop=STOP,
            lock_fd=self._lock_fd,
        )

    def stop(self) -> None:
        """Shut the broker down (SIGTERM, then SIGKILL) and wait; without effect if it doesn't run."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            self._process.wait()

    def terminate(self) -> None:
        """SIGTERM, without waiting: a controlled shutdown begins."""
        if self._process is not None:
            self._process.signal(signal.SIGTERM)

    def suspend(self) -> None:
        """SIGSTOP: the process freezes, its connections stay open."""
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `suspend()`."""
        if self._process is not None:
            self._process.signal(signal.SIGCONT)

    def wait(self, timeout: float) -> int:
        """Wait until the JVM has ended by itself or after `terminate()`; its exit code.

        Raises:
            DevServerError: it still runs after `timeout` seconds, or was never started.
        """
        if self._process is None:
            raise DevServerError(f"Kafka node {self.node_id} has no process: start it first")
        return self._process.wait(timeout)

    def release(self) -> None:
        """Give the ports back; the node can't be started again."""
        for port in (self._client_port, self._controller_port, *self._listeners.values()):
            port.release()

    def require_running(self) -> None:
        """Raise with the end of the log if the JVM has ended.

        Raises:
            DevServerError: it has.
        """
        if not self.running:
            raise DevServerError(
                f"Kafka node {self.node_id} ended with exit code {self.exit_code}. "
                f"Its data is kept in {self.data_directory}. {log_tail(self.log_path)}"
            )

    @property
    def _configuration(self) -> Path:
        return self._directory / "server.properties"

    def _format(self, cluster_id: str) -> None:
        # The same as `kafka-storage format`, without its second of JVM time: the checkpoint with the feature levels was
        # made by that tool (distribution.py). meta.properties comes last, since it marks the directory as formatted.
        if self._runtime.bootstrap_checkpoint is None:
            raise RuntimeError("a runtime without bootstrap checkpoint can't format")
        self.data_directory.mkdir(exist_ok=True, mode=0o700)
        checkpoint = self.data_directory / "bootstrap.checkpoint"
        shutil.copyfile(self._runtime.bootstrap_checkpoint, checkpoint)
        checkpoint.chmod(0o600)
        write_properties(
            self.data_directory / "meta.properties",
            {
                "version": "1",
                "cluster.id": cluster_id,
                "node.id": str(self.node_id),
                "directory.id": new_id(),
            },
        )


def wait_until_ready(nodes: Sequence[KafkaNode], properties: Mapping[str, str], timeout: float) -> None:
    """Wait until the nodes that run see each other, are in sync, and serve groups and transactions.

    Args:
        nodes: the cluster; nodes that were killed or stopped are left out.
        properties: the cluster's broker properties.
        timeout: seconds.

    Raises:
        Raise DevServerError if a node ends, none runs, or the time is up; the message contains the end of a log.
    """
    running = [node for node in nodes if node.running]
    if not running:
        nodes[0].require_running()
    readiness = Readiness(
        {node.node_id: node.port for node in running},
        int(properties["offsets.topic.num.partitions"]),
        int(properties["transaction.state.log.num.partitions"]),
    )
    deadline = time.monotonic() + timeout
    while missing := readiness.missing():
        for node in running:
            node.require_running()
        if time.monotonic() > deadline:
            raise DevServerError(
                f"Kafka was not ready within {timeout:g} s: {missing}. "
                f"Its data is kept in {running[0].data_directory}. {log_tail(running[0].log_path)}"
            )
        time.sleep(POLL_SECONDS)


def new_id() -> str:
    """A random id in Kafka's form: a UUID in URL-safe base64 that doesn't look like an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Java properties file, atomically and for its owner alone: passwords of keys may be in it."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{key}={value}\n" for key, value in properties.items())
    new.replace(path)
