"""Files of wrapping keys: a new one, or a new key in front of those that are there."""

import os
import tempfile
from pathlib import Path

from waypost.encryption.wrapping import FileWrapper, new_wrapping_key, parse_wrapping_keys
from waypost_worker.cli.support.output import CommandError


def write_wrapping_key(path: Path, *, add: bool) -> list[str]:
    """Write a new wrapping key, and return the names of all that the file then holds, the newest first.

    Raises:
        CommandError: The file exists and ``add`` is not given, or it can't be read or written.
        KeyWrappingError: It holds something else.
    """
    older = FileWrapper(path).read() if add else ""
    text = "\n".join([new_wrapping_key(), *older.split()]) + "\n"
    try:
        _replace(path, text) if add else _create(path, text)
    except FileExistsError:
        raise CommandError(
            f"{path} exists already. Nothing was written: a lost wrapping key can't be replaced. Use --add to put a "
            "new one in front"
        ) from None
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}") from None
    return list(parse_wrapping_keys(text, str(path)))


def _create(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    # Readers see the old keys or all of them, whenever this is stopped.
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, target.stat().st_mode & 0o777)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
