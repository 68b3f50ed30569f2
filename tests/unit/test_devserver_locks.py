"""A state directory is its owner's alone."""

import os
from pathlib import Path

import pytest

from waypost_worker.cli.support.options import Target
from waypost_worker.config.settings import SettingsError
from waypost_worker.devserver import DevServerError, Endpoints
from waypost_worker.devserver.locks import DirectoryLock

NOBODY = 65534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def locked(directory: Path) -> DirectoryLock:
    lock = DirectoryLock(directory)
    lock.acquire(0)
    return lock


@pytest.fixture(autouse=True)
def _usual_umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_new_directory_is_closed(tmp_path: Path) -> None:
    lock = locked(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o700
    assert mode(tmp_path / "state" / ".lock") == 0o600
    lock.release()


def test_a_directory_that_an_older_version_left_open_is_closed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    locked(state).release()
    (state / "kafka").mkdir()
    state.chmod(0o755)
    locked(state).release()
    assert mode(state) == 0o700


def test_an_open_directory_with_other_files_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "somebody's").touch()
    with pytest.raises(DevServerError, match=r"open to other users and holds other files.*chmod 700"):
        locked(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
    assert [each.name for each in tmp_path.iterdir()] == ["somebody's"]


@only_root
def test_a_lock_that_another_user_put_there_does_not_make_a_directory_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / ".lock").touch()
    os.chown(tmp_path / ".lock", NOBODY, NOBODY)
    with pytest.raises(DevServerError, match="holds other files"):
        locked(tmp_path)


@only_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(DevServerError, match=rf"belongs to another user.*chown -R 0 {tmp_path}"):
        locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


@only_root
def test_endpoints_that_another_user_wrote_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Endpoints("localhost:1", "postgresql://elsewhere/waypost").write(tmp_path)
    monkeypatch.setenv("WAYPOST_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("WAYPOST_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("WAYPOST_POSTGRES_DSN", raising=False)
    assert Target().settings().bootstrap_servers == "localhost:1"
    os.chown(written, NOBODY, NOBODY)
    with pytest.raises(SettingsError, match="belongs to another user"):
        Target().settings()
