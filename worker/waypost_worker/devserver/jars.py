"""Apache Kafka's jars: which ones exactly, where they are kept, and that they are what they should be.

Owns jars.lock, the cache directory and the download (by jgo, in pure Python; neither Maven nor Java is needed).
Independent of running Kafka. WAYPOST_MAVEN_REPOSITORY names a mirror to download from (a URL in Maven's layout); the
digests in jars.lock are checked no matter where the jars come from.

    python -m waypost_worker.devserver.jars --relock

resolves the roots again and rewrites jars.lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost_worker.devserver.errors import DevServerError
from waypost_worker.devserver.locks import exclusive, workspace

ROOTS = ("org.apache.kafka:kafka_2.13:4.3.1", "org.slf4j:slf4j-simple:2.0.17")
"""The roots of jars.lock: the broker, and a log backend that writes to standard error."""

LOCK_FILE = Path(__file__).with_name("jars.lock")
PARALLEL_DOWNLOADS = 8
DOWNLOAD_SECONDS = 30

OnProgress = Callable[[int, int, str], None]
"""Called with (steps done, total steps, current step), from the caller's thread."""


def no_progress(done: int, total: int, name: str) -> None:
    """An `OnProgress` that does nothing."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned artifact: Maven coordinate (group:artifact:version) and sha256 of its jar."""

    coordinate: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of the file, such as kafka-clients-4.3.1.jar."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def cache_directory() -> Path:
    """WAYPOST_CACHE_DIR, or `waypost` below XDG_CACHE_HOME or ~/.cache."""
    if explicit := os.environ.get("WAYPOST_CACHE_DIR"):
        return Path(explicit).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "waypost"


def locked_jars(lock_file: Path = LOCK_FILE) -> list[Jar]:
    """The jars of the lock file, in class path order."""
    entries = tomllib.loads(lock_file.read_text(encoding="utf-8"))["jar"]
    return [Jar(entry["coordinate"], entry["sha256"]) for entry in entries]


def distribution_directory(lock_file: Path = LOCK_FILE) -> Path:
    """Return the cache directory of this lock file; another lock file has another directory."""
    digest = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    version = ROOTS[0].rpartition(":")[2]
    return cache_directory() / f"kafka-{version}-{digest[:12]}"


def ensure_jars(progress: OnProgress = no_progress, lock_file: Path = LOCK_FILE) -> list[Path]:
    """Download what is missing, verify everything; the paths in class path order.

    A jar that was verified before is only looked at (size and modification time). Processes that
    need the jars at the same time take turns.

    Raises:
        DevServerError: a download failed, or a jar is not the pinned one.
    """
    jars = locked_jars(lock_file)
    root = distribution_directory(lock_file)
    directory = root / "jars"
    with exclusive(root / "download.lock"):
        directory.mkdir(exist_ok=True)
        stamps = _Stamps(root / "verified.json")
        missing: list[Jar] = []
        for jar in jars:
            path = directory / jar.file_name
            if not path.exists():
                missing.append(jar)
            elif not stamps.holds(path):
                _require_digest(path, jar)
                stamps.add(path)
        done = len(jars) - len(missing)
        with workspace(root / "download") as staging:
            for jar, downloaded in _download(missing, staging):
                _require_digest(downloaded, jar)
                path = directory / jar.file_name
                downloaded.replace(path)
                stamps.add(path)
                done += 1
                progress(done, len(jars), jar.file_name)
        stamps.save()
    return [directory / jar.file_name for jar in jars]


class _Stamps:
    """Remembers size and modification time of the files that were verified."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[str, list[int]] = {}
        if path.exists():
            self._seen = json.loads(path.read_text(encoding="utf-8"))

    def holds(self, path: Path) -> bool:
        return self._seen.get(path.name) == self._stamp(path)

    def add(self, path: Path) -> None:
        self._seen[path.name] = self._stamp(path)

    def save(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._seen), encoding="utf-8")
        new.replace(self._path)

    @staticmethod
    def _stamp(path: Path) -> list[int]:
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_digest(path: Path, jar: Jar) -> None:
    found = _digest(path)
    if found != jar.sha256:
        raise DevServerError(
            f"{jar.coordinate} is not the jar that Waypost pins: {path} has sha256 {found}, "
            f"expected {jar.sha256}. Kafka was not started; the other jars are kept. "
            "Delete that file and start again to download it again. If it still differs, a mirror or a "
            "proxy changes your jars."
        )


def _download(jars: list[Jar], staging: Path) -> Iterable[tuple[Jar, Path]]:
    """Fetch jars into `staging`; yields each as it arrives."""
    if not jars:
        return
    context = _maven(staging)
    artifacts = {jar: context.create_dependency(jar.coordinate).artifact for jar in jars}
    pool = ThreadPoolExecutor(PARALLEL_DOWNLOADS)
    try:
        futures = {pool.submit(artifact.resolve): jar for jar, artifact in artifacts.items()}
        for future in as_completed(futures):
            jar = futures[future]
            try:
                yield jar, future.result()
            except (OSError, RuntimeError) as error:
                raise DevServerError(
                    f"could not download {jar.coordinate}: {error}. Kafka was not started; the jars "
                    "downloaded so far are kept. Start again to continue; the first start needs a "
                    "network, a mirror in WAYPOST_MAVEN_REPOSITORY, or a WAYPOST_CACHE_DIR filled elsewhere."
                ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _maven(repository: Path) -> Any:
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise DevServerError(
            'the embedded Kafka needs the package jgo. Install it with: pip install "waypost[dev]"'
        ) from error
    mirror = os.environ.get("WAYPOST_MAVEN_REPOSITORY")
    return MavenContext(
        repo_cache=repository, remote_repos={"mirror": mirror} if mirror else None, timeout=DOWNLOAD_SECONDS
    )


def relock(lock_file: Path = LOCK_FILE, roots: Iterable[str] = ROOTS) -> list[Jar]:
    """Resolve ``roots`` with all that they need at run time, and write the lock file."""
    with tempfile.TemporaryDirectory() as staging:
        context = _maven(Path(staging))
        inputs, transitive = context.resolver.resolve([context.create_dependency(root) for root in roots])
        coordinates = [f"{item.groupId}:{item.artifactId}:{item.version}" for item in inputs + transitive]
        unverified = [Jar(coordinate, "") for coordinate in coordinates]
        digests = {jar.coordinate: _digest(path) for jar, path in _download(unverified, Path(staging))}
    jars = [Jar(coordinate, digests[coordinate]) for coordinate in coordinates]
    text = "# Written by `python -m waypost_worker.devserver.jars --relock`. Class path order.\n"
    for jar in jars:
        text += f'\n[[jar]]\ncoordinate = "{jar.coordinate}"\nsha256 = "{jar.sha256}"\n'
    lock_file.write_text(text, encoding="utf-8")
    return jars


def main(arguments: list[str]) -> int:
    """Command line: download and verify the jars, or (--relock) rewrite the lock file."""
    if arguments == ["--relock"]:
        sys.stdout.write(f"{LOCK_FILE.name}: {len(relock())} jars\n")
        return 0
    if arguments:
        sys.stderr.write("usage: python -m waypost_worker.devserver.jars [--relock]\n")
        return 2
    paths = ensure_jars(lambda done, total, name: print(f"{done}/{total} {name}", file=sys.stderr))  # noqa: T201
    sys.stdout.write(f"{len(paths)} jars verified in {paths[0].parent}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
