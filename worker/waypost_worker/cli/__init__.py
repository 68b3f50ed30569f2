"""The command line. May import everything; nothing imports it."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line.

    A bare install has too few packages for it. There, ``waypost --version`` works, and everything else says which extra
    to install, with exit code 2.
    """
    if sys.argv[1:] == ["--version"]:
        from waypost import __version__

        sys.stdout.write(f"{__version__}\n")
        return
    try:
        from waypost_worker.cli.app import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("waypost"):
            raise
        sys.stderr.write(
            f"waypost: the command line needs more packages than a bare install has ({error.name} is missing). Install "
            "them with: pip install 'waypost[worker]', or 'waypost[dev]' for embedded servers\n"
        )
        sys.exit(2)
    run()
