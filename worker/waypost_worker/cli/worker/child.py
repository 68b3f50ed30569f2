"""A worker that belongs to a parent: it drains when its standard input closes, which the parent's death does.

Run as ``python -m waypost_worker.cli.worker.child`` with the settings in the environment.
"""

import os
import signal
import sys
import threading
import time
from typing import Final

from waypost_worker.runtime.signals import end_at_once_on_signals

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
    end_at_once_on_signals()
    from waypost_worker.cli.support.output import FAILED, USAGE, note
    from waypost_worker.cli.worker.run import run
    from waypost_worker.config.settings import SettingsError, load_settings

    try:
        settings = load_settings()
        threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
        raise SystemExit(run(settings))
    except SettingsError as error:
        note(f"waypost: {error}")
        raise SystemExit(USAGE) from None
    except Exception as error:
        note(f"waypost: the worker ended. {type(error).__name__}: {error}")
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
