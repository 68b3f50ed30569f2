"""``python -m waypost_worker.cli``."""

from waypost_worker.cli.app import main

main()
