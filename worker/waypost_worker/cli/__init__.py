"""The command line. May import everything; nothing imports it."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run it; where its packages are missing, as after a bare install, say which extra brings them."""
    try:
        from waypost_worker.cli.app import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("waypost"):
            raise
        sys.stderr.write(
            f"waypost: the command line needs more packages than a bare install brings ({error.name} is missing): "
            "pip install 'waypost[worker]', or 'waypost[dev]' for the embedded servers\n"
        )
        sys.exit(2)
    run()
