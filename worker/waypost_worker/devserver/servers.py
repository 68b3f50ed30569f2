"""One Kafka and one Postgres on one state directory, started and stopped together.

Owns the state directory: its lock, endpoints.json, and its removal if it is ephemeral. Knows nothing about topics,
migrations and workers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from typing_extensions import override

from waypost import endpoints
from waypost.endpoints import Endpoints
from waypost_worker.devserver.kafka import ClusterOptions, EmbeddedKafka
from waypost_worker.devserver.locks import DirectoryLock
from waypost_worker.devserver.postgres import EmbeddedPostgres
from waypost_worker.devserver.startable import Startable


class Servers(Startable):
    """The embedded servers of one state directory.

    The servers end with this
    process, whatever ends it; their state stays and can be started again.
    """

    def __init__(
        self,
        state_dir: Path | None = None,
        *,
        kafka: ClusterOptions | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        postgres_port: int = 0,
        other_ports: bool = False,
    ) -> None:
        """Describe the servers; nothing starts yet.

        Args:
            state_dir: the directory for their data; None for a temporary one that `stop()` removes.
            kafka: the configuration of the Kafka cluster; None for a single node.
            postgres_settings: server settings, see EmbeddedPostgres.
            postgres_port: port; 0 lets the system choose.
            other_ports: whether Postgres takes another port if that one is taken.
        """
        self._ephemeral = state_dir is None
        self.state_dir = (state_dir or Path(tempfile.mkdtemp(prefix="waypost-"))).absolute()
        self._lock = DirectoryLock(self.state_dir)
        self.kafka = EmbeddedKafka(self.state_dir / "kafka", kafka)
        self.postgres = EmbeddedPostgres(
            self.state_dir / "postgres",
            settings=postgres_settings,
            port=postgres_port,
            other_ports=other_ports,
        )

    @property
    def endpoints(self) -> Endpoints:
        """The addresses of the servers.

        Raises:
            DevServerError: they are not started.
        """
        return Endpoints(self.kafka.bootstrap_servers, self.postgres.dsn)

    @override
    def start(self) -> Endpoints:
        """Start both, wait until both can serve, write endpoints.json.

        Raises:
            DevServerError: another process uses the state directory, or a server doesn't come up;
                nothing is left running then.
        """
        if self._lock.held:
            return self.endpoints
        self._lock.acquire(patience=0)
        try:
            endpoints.remove(self.state_dir)
            # The JVM takes longest; Postgres is created and started at the same time.
            self.kafka.launch()
            self.postgres.start()
            self.kafka.wait_until_ready()
            found = self.endpoints
            found.write(self.state_dir)
        except BaseException:
            self.stop()
            raise
        return found

    @override
    def stop(self) -> None:
        """Stop both, remove endpoints.json, and all state where it is ephemeral."""
        if not self._lock.held:
            return
        endpoints.remove(self.state_dir)
        self.kafka.terminate()
        self.postgres.stop()
        self.kafka.stop()
        if self._ephemeral:
            shutil.rmtree(self.state_dir, ignore_errors=True)
        self._lock.release()
