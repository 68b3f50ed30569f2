"""``python -m waypost_worker.cli``."""

from waypost_worker.cli import main

main()
