"""The command line. A leaf: nothing imports it."""

from waypost_worker.cli.app import main

__all__ = ["main"]
