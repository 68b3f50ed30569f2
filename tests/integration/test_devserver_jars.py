"""Kafka's jars are exactly the pinned ones, wherever and whenever they come."""

import multiprocessing
import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support.servers import unavailable

from waypost_worker.devserver.errors import DevServerError
from waypost_worker.devserver.jars import ROOTS, Jar, distribution_directory, ensure_jars, locked_jars

SMALL = ("org.slf4j:slf4j-simple:2.0.17", "org.slf4j:slf4j-api:2.0.17", "org.jspecify:jspecify:1.0.0")


class Mirror:
    """A Maven repository on the loopback interface, with the three smallest of the pinned jars."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requested: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(handler, format: str, *arguments: object) -> None:
                if handler.path.endswith(".jar"):
                    self.requested.append(handler.path)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def path(self, jar: Jar) -> Path:
        group, artifact, version = jar.coordinate.split(":")
        return self.root.joinpath(*group.split("."), artifact, version, jar.file_name)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="session")
def pinned() -> dict[Jar, bytes]:
    try:
        paths = ensure_jars()
    except DevServerError as error:
        unavailable(str(error))
    return {
        jar: path.read_bytes()
        for jar, path in zip(locked_jars(), paths, strict=True)
        if jar.coordinate in SMALL
    }


@pytest.fixture
def mirror(pinned: dict[Jar, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    running = Mirror(tmp_path / "mirror")
    for jar, content in pinned.items():
        running.path(jar).parent.mkdir(parents=True)
        running.path(jar).write_bytes(content)
    monkeypatch.setenv("WAYPOST_MAVEN_REPOSITORY", running.url)
    monkeypatch.setenv("WAYPOST_CACHE_DIR", str(tmp_path / "cache"))
    yield running
    running.close()


@pytest.fixture
def lock_file(pinned: dict[Jar, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "small.lock"
    path.write_text(
        "".join(f'[[jar]]\ncoordinate = "{jar.coordinate}"\nsha256 = "{jar.sha256}"\n' for jar in pinned)
    )
    return path


def test_the_lock_pins_every_jar_by_version_and_digest() -> None:
    jars = locked_jars()
    assert {jar.coordinate for jar in jars} >= set(ROOTS)
    assert len({jar.file_name for jar in jars}) == len(jars)
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in jars)
    assert all(re.fullmatch(r"[^:]+:[^:]+:[0-9][^:]*", jar.coordinate) for jar in jars)


def test_missing_jars_are_fetched_once_and_progress_is_shown(mirror: Mirror, lock_file: Path) -> None:
    told: list[tuple[int, int, str]] = []
    paths = ensure_jars(lambda *step: told.append(step), lock_file)
    assert [path.name for path in paths] == [jar.file_name for jar in locked_jars(lock_file)]
    assert [step[:2] for step in told] == [(1, 3), (2, 3), (3, 3)]
    assert {step[2] for step in told} == {path.name for path in paths}
    assert ensure_jars(lambda *step: told.append(step), lock_file) == paths
    assert len(told) == len(mirror.requested) == 3


def test_a_jar_that_arrives_changed_is_refused_and_never_reaches_the_cache(
    mirror: Mirror, lock_file: Path
) -> None:
    changed = locked_jars(lock_file)[1]
    genuine = mirror.path(changed).read_bytes()
    mirror.path(changed).write_bytes(genuine + b"\n")
    with pytest.raises(DevServerError) as refused:
        ensure_jars(lock_file=lock_file)
    assert changed.coordinate in str(refused.value)
    assert changed.sha256 in str(refused.value)
    assert not (distribution_directory(lock_file) / "jars" / changed.file_name).exists()

    mirror.path(changed).write_bytes(genuine)
    assert all(path.exists() for path in ensure_jars(lock_file=lock_file))


def test_a_jar_that_changes_on_disk_is_refused_until_it_is_deleted(mirror: Mirror, lock_file: Path) -> None:
    path = ensure_jars(lock_file=lock_file)[0]
    path.write_bytes(b"not a jar")
    with pytest.raises(DevServerError, match=re.escape(str(path))):
        ensure_jars(lock_file=lock_file)
    path.unlink()
    assert ensure_jars(lock_file=lock_file)[0].stat().st_size > 1000


def test_a_jar_that_cannot_be_fetched_is_named_and_the_next_start_continues(
    mirror: Mirror, lock_file: Path
) -> None:
    absent = locked_jars(lock_file)[2]
    genuine = mirror.path(absent).read_bytes()
    mirror.path(absent).unlink()
    with pytest.raises(DevServerError, match=f"could not download {absent.coordinate}"):
        ensure_jars(lock_file=lock_file)
    mirror.path(absent).write_bytes(genuine)
    assert len(ensure_jars(lock_file=lock_file)) == 3


def test_two_concurrent_processes_fetch_each_jar_once(mirror: Mirror, lock_file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=ensure_jars, kwargs={"lock_file": lock_file}) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(mirror.requested) == 3


def test_the_cache_directory_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WAYPOST_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert distribution_directory().parent == tmp_path / "xdg" / "waypost"
    monkeypatch.setenv("WAYPOST_CACHE_DIR", os.fspath(tmp_path / "mine"))
    assert distribution_directory().parent == tmp_path / "mine"
