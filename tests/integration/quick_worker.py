"""A ``waypost worker`` that looks more often, for tests that wait until it shows or notices something.

A worker checks lag, pools and databases every 5 s, shows a delay of its event loop for 10 s, and tries a refused
partition again every 30 s. Nothing that it does then depends on either. The arguments are those of ``waypost``.
"""

from functools import partial

from waypost_worker.cli import main
from waypost_worker.partition.ownership import Limits
from waypost_worker.runtime import worker
from waypost_worker.telemetry import health

worker._LOOK_SECONDS /= 10  # type: ignore[misc]
vars(worker)["Limits"] = partial(Limits, refused_wait=3)
health._SECONDS_KEPT /= 2  # type: ignore[misc]

if __name__ == "__main__":
    main()
