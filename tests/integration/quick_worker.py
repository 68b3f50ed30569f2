"""A ``waypost worker`` with fresher metrics, for tests that wait until they show something.

A worker checks lag, pools and databases every 5 s, and shows a delay of its event loop for 10 s. Nothing that it does
depends on either. The arguments are those of ``waypost``.
"""

from waypost_worker.cli import main
from waypost_worker.runtime import worker
from waypost_worker.telemetry import health

worker._LOOK_SECONDS /= 10  # type: ignore[misc]
health._SECONDS_KEPT /= 2  # type: ignore[misc]

if __name__ == "__main__":
    main()
