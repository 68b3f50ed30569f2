"""Base backups of a Postgres that a scenario breaks, and what comes back from one."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.servers import POSTGRES_SETTINGS

from waypost_worker.devserver import EmbeddedPostgres
from waypost_worker.devserver.postgres_programs import binary


def base_backup(postgres: EmbeddedPostgres, to: Path, *options: str) -> None:
    """Copy what a running server holds now."""
    subprocess.run(
        [
            *(str(binary("pg_basebackup")), "--dbname", postgres.dsn, "--pgdata", str(to)),
            *("--checkpoint=fast", "--wal-method=stream", "--no-sync", *options),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )


def restore(postgres: EmbeddedPostgres, backup: Path) -> None:
    """Replace the data of a killed server, with the owner and the rights that it had."""
    data = postgres.data_directory
    owner = data.stat()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    data.chmod(0o700)
    _give(data, owner)
    postgres.restart()


def standby_of(primary: EmbeddedPostgres, directory: Path) -> EmbeddedPostgres:
    """Make a streaming standby of a running server, with the same passwords. It is not started yet."""
    base_backup(primary, directory / "data", "--write-recovery-conf")
    shutil.copy(primary.data_directory.parent / "password", directory)
    for path in (directory / "data", directory / "password"):
        _give(path, primary.data_directory.stat())
    return EmbeddedPostgres(directory, settings=POSTGRES_SETTINGS)


def _give(what: Path, owner: os.stat_result) -> None:
    for path in (what, *what.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
