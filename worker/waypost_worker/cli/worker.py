"""``waypost worker``: one worker process."""

from typing import Annotated

from cyclopts import Parameter

from waypost_worker.cli.common import NO_TARGET, Target


def worker(
    *,
    migrate: Annotated[bool | None, Parameter(help="apply pending migrations first")] = None,
    log_level: Annotated[str | None, Parameter(help="debug, info, warning or error")] = None,
    target: Target = NO_TARGET,
) -> int:
    """Run one worker until SIGTERM or Ctrl-C.

    It finishes the work in hand before it ends; a second signal ends it at
    once. Any number of workers share the partitions. Exit code 0 after a clean
    end. The other settings: 'waypost config show'.

    For example:

      waypost worker --migrate --bootstrap-servers kafka:9092
    """
    from waypost_worker.cli.worker_process import run

    return run(target.settings(migrate=migrate, log_level=log_level))
