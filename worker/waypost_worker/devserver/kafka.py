"""A real Apache Kafka (KRaft) on the loopback interface: one node, or a cluster of several.

Owns the cluster's configuration and the wait until it can serve. Knows nothing about Waypost's topics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from waypost_worker.devserver.distribution import prepare
from waypost_worker.devserver.errors import DevServerError
from waypost_worker.devserver.jars import OnProgress, no_progress
from waypost_worker.devserver.jvm import FAST_START, JvmProfile, Runtime
from waypost_worker.devserver.locks import DirectoryLock
from waypost_worker.devserver.node import KafkaNode, default_properties, new_id, wait_until_ready
from waypost_worker.devserver.ports import HOST, Port
from waypost_worker.devserver.startable import Startable

LOCK_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """The configuration of a cluster.

    Attributes:
        nodes: number of nodes, each broker and controller; must not change for a directory.
        properties: broker properties that override `default_properties`.
        listeners: further listeners by name, each with its protocol (SSL, SASL_SSL, …); their keys,
            mechanisms and so on are `properties`. The unprotected one stays, for the brokers themselves.
        profile: JVM settings, FAST_START or THROUGHPUT.
        port: client port of a single node, or 0 for any free one.
        other_ports: whether to let the system choose if that port is taken.
        runtime: a shared result of `prepare()`; None prepares it at start.
        jvm_options: further options of every node's JVM.
        progress: called while jars are downloaded.
        start_timeout: seconds until a start counts as failed.
    """

    nodes: int = 1
    properties: Mapping[str, str] = field(default_factory=dict)
    listeners: Mapping[str, str] = field(default_factory=dict)
    profile: JvmProfile = FAST_START
    port: int = 0
    other_ports: bool = False
    runtime: Runtime | None = None
    jvm_options: Sequence[str] = ()
    progress: OnProgress = no_progress
    start_timeout: float = 90.0

    def __post_init__(self) -> None:
        if self.nodes < 1 or (self.nodes > 1 and self.port):
            raise ValueError("nodes must be at least 1, and a port can be chosen for a single node only")


class EmbeddedKafka(Startable):
    """A Kafka cluster with its data below `directory`.

    Ports stay the same until
    `stop()`, also over `kill()` and `restart()`. `nodes` gives each node's own kill, terminate,
    suspend and resume; the cluster's act on all nodes.
    """

    def __init__(self, directory: Path, options: ClusterOptions | None = None) -> None:
        """Describe the cluster; nothing starts yet.

        Args:
            directory: state directory; created where missing, started again where it holds a cluster.
            options: how it is made; None for a single node.
        """
        options = options or ClusterOptions()
        self._directory = directory.absolute()
        self._count = options.nodes
        self._properties = {**default_properties(options.nodes), **options.properties}
        self._listeners = dict(options.listeners)
        self._profile = options.profile
        self._port = options.port
        self._other_ports = options.other_ports
        self._runtime = options.runtime
        self._jvm_options = options.jvm_options
        self._progress = options.progress
        self._start_timeout = options.start_timeout
        self._lock = DirectoryLock(self._directory)
        self.nodes: list[KafkaNode] = []

    @property
    def bootstrap_servers(self) -> str:
        """host:port of every node, joined by commas."""
        if not self.nodes:
            raise DevServerError("Kafka has no ports yet: start it first")
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def address(self, listener: str) -> str:
        """host:port of every node's listener of this name, joined by commas."""
        return ",".join(f"{HOST}:{node.listener_port(listener)}" for node in self.nodes)

    @property
    def pid(self) -> int:
        """Process id of the first node's JVM."""
        if not self.nodes:
            raise DevServerError("Kafka has no process: start it first")
        return self.nodes[0].pid

    @property
    def log_path(self) -> Path:
        """The first node's log."""
        return self._node_directory(1) / "kafka.log"

    @property
    def running(self) -> bool:
        """Return whether any node's JVM is alive."""
        return any(node.running for node in self.nodes)

    @override
    def start(self) -> None:
        """Start all nodes and wait until they can serve groups and transactions.

        Raises:
            DevServerError: they can't be prepared or don't come up; the message holds a log's end.
        """
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """The first part of `start()`: all nodes' processes run, but may not serve yet.

        Raises:
            DevServerError: they can't be prepared.
        """
        if self.nodes:
            return
        try:
            self._lock.acquire(LOCK_PATIENCE_SECONDS)
            runtime = self._runtime or prepare(self._progress)
            for number in range(1, self._count + 1):
                directory = self._node_directory(number)
                port = Port(self._port, or_other=self._other_ports)
                self.nodes.append(KafkaNode(number, directory, port, runtime, self._profile, self._listeners))
            self._configure()
            for node in self.nodes:
                node.launch()
        except BaseException:
            self.stop()
            raise

    @override
    def stop(self) -> None:
        """Shut all nodes down, give up ports and directory; without effect if stopped."""
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.stop()
            node.release()
        self.nodes = []
        self._lock.release()

    def restart(self) -> None:
        """Stop and start one node after the other, each once the cluster is whole again."""
        for node in self.nodes:
            self.restart_node(node)

    def restart_node(self, node: KafkaNode) -> None:
        """Stop one node (unless it is down already), start it, and wait until the cluster is whole."""
        node.stop()
        node.launch()
        self.wait_until_ready()

    def kill(self) -> None:
        """SIGKILL every node and wait until they are gone. `restart()` brings them back."""
        for node in self.nodes:
            node.kill()

    def terminate(self) -> None:
        """SIGTERM to every node, without waiting."""
        for node in self.nodes:
            node.terminate()

    def suspend(self) -> None:
        """SIGSTOP to every node."""
        for node in self.nodes:
            node.suspend()

    def resume(self) -> None:
        """SIGCONT to every node."""
        for node in self.nodes:
            node.resume()

    def wait_until_ready(self) -> None:
        """Wait until the running nodes see each other, are in sync, and serve groups and transactions.

        Raises:
            DevServerError: a node that was launched has ended, or the time is up; with a log's end.
        """
        wait_until_ready(self.nodes, self._properties, self._start_timeout)

    def _node_directory(self, number: int) -> Path:
        return self._directory / f"node-{number}"

    def _configure(self) -> None:
        known = [node.cluster_id for node in self.nodes if node.cluster_id]
        cluster_id = known[0] if known else new_id()
        properties = {
            **self._properties,
            "controller.quorum.voters": ",".join(node.voter for node in self.nodes),
        }
        for node in self.nodes:
            node.configure(cluster_id, properties, lock_fd=self._lock.fd, jvm_options=self._jvm_options)
