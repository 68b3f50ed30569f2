"""endpoints.json: the addresses of the servers that ``waypost dev`` runs on a state directory.

Part of the process interface: other programs read it. Owns the file's shape and its atomic writing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from waypost.errors import SettingsError

FILE_NAME: Final = "endpoints.json"
STATE_DIR_VARIABLE: Final = "WAYPOST_STATE_DIR"
DEFAULT_STATE_DIR: Final = Path(".waypost")


def state_directory() -> Path:
    """Return the directory in which ``waypost dev`` keeps its state by default."""
    return Path(os.environ.get(STATE_DIR_VARIABLE) or DEFAULT_STATE_DIR)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of one Kafka and one Postgres.

    Attributes:
        bootstrap_servers: host:port, joined by commas.
        postgres_dsn: connection string; holds a password.
    """

    bootstrap_servers: str
    postgres_dsn: str

    @classmethod
    def read(cls, state_dir: Path) -> Self | None:
        """Return the endpoints of the servers that run on a state directory, or None if none run.

        Raises:
            SettingsError: The file can't be read, or another user wrote it, who could have us talk to servers of
                theirs.
        """
        path = state_dir / FILE_NAME
        try:
            with path.open(encoding="utf-8") as file:
                owner = os.fstat(file.fileno()).st_uid
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path} can't be read: {error}") from None
        if owner not in (os.geteuid(), 0):
            raise SettingsError(
                f"{path} belongs to another user (id {owner}), so it was not used. Nothing was connected. "
                "Remove it, name your own servers with WAYPOST_BOOTSTRAP_SERVERS and WAYPOST_POSTGRES_DSN, or "
                "choose another WAYPOST_STATE_DIR"
            )
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{path} can't be read: {error}") from None

    def write(self, state_dir: Path) -> Path:
        """Write the file, readable by its owner only; readers see all of it or nothing."""
        path = state_dir / FILE_NAME
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self), indent=2) + "\n")
        new.replace(path)
        return path


def remove(state_dir: Path) -> None:
    """Remove the file, if it is there."""
    (state_dir / FILE_NAME).unlink(missing_ok=True)
