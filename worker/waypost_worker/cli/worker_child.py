"""A worker that belongs to a parent: it drains when its standard input closes, which the parent's death does.

Run as ``python -m waypost_worker.cli.worker_child`` with the settings in the environment.
"""

import os
import signal
import sys
import threading
import time
from typing import Final

from waypost_worker.cli.output import USAGE, note
from waypost_worker.settings import SettingsError, load_settings

_DRAIN_SECONDS: Final = 5


def _watch_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    # The servers may have died with the parent, and then nothing can be drained.
    time.sleep(_DRAIN_SECONDS)
    os._exit(1)


def main() -> None:
    """Run the worker."""
    from waypost_worker.service import run_worker
    from waypost_worker.telemetry.logs import configure_logs

    try:
        settings = load_settings()
    except SettingsError as error:
        note(f"waypost: {error}")
        raise SystemExit(USAGE) from None
    configure_logs(settings.log_level, settings.log_format)
    threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
    raise SystemExit(run_worker(settings))


if __name__ == "__main__":
    main()
