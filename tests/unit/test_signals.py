"""SIGTERM that comes while a worker is still starting ends it with exit code 0, and quietly."""

import os
import signal
import subprocess
import sys

import pytest

# Sends the signal to the process itself at the moment when it begins to import the module.
_SIGNAL_DURING_IMPORT = """
import os, runpy, sys
from importlib.abc import MetaPathFinder

class Sender(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Sender())
sys.argv = ["waypost", *{arguments!r}]
runpy.run_module({entry!r}, run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("entry", "arguments"),
    [
        ("waypost_worker.cli", ("worker",)),
        ("waypost_worker.cli", ("worker", "--processes", "2")),
        ("waypost_worker.cli.worker.child", ()),
    ],
)
def test_a_worker_that_must_stop_while_it_starts_ends_quietly(
    entry: str, arguments: tuple[str, ...], number: signal.Signals
) -> None:
    module = (
        "waypost_worker.cli.worker.processes"
        if "--processes" in arguments
        else "waypost_worker.runtime.process"
    )
    program = _SIGNAL_DURING_IMPORT.format(
        module=module, number=int(number), arguments=arguments, entry=entry
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "WAYPOST_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
