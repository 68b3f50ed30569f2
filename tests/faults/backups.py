"""Base backups of a Postgres that a scenario breaks, and what comes back from one."""

import os
import shutil
import subprocess
from pathlib import Path

from waypost_worker.devserver import EmbeddedPostgres
from waypost_worker.devserver.postgres_programs import binary


def base_backup(postgres: EmbeddedPostgres, to: Path) -> None:
    """Copy what a running server holds now."""
    subprocess.run(
        [
            *(str(binary("pg_basebackup")), "--dbname", postgres.dsn, "--pgdata", str(to)),
            *("--checkpoint=fast", "--wal-method=stream", "--no-sync"),
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
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    postgres.restart()
