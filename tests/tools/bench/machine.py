"""The environment of a run: machine and versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from waypost_worker.devserver.jars import ROOTS
from waypost_worker.devserver.jvm import java_version

_LIBRARIES: Final = ("aiokafka", "asyncpg", "orjson", "pydantic", "uvloop", "waypost")


def machine() -> dict[str, Any]:
    """Processor, memory, system."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_average_at_the_end": [round(load, 2) for load in os.getloadavg()],
    }


def versions(postgres: str) -> dict[str, str]:
    """Python, the servers and the libraries that matter."""
    return {
        "python": platform.python_version(),
        "kafka": ROOTS[0].rpartition(":")[2],
        "java": java_version(),
        "postgres": postgres,
        **{library: version(library) for library in _LIBRARIES},
    }
