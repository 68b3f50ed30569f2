"""The one error of this package."""

from waypost.errors import WaypostError


class SnapshotError(WaypostError):
    """A snapshot can't be taken, read or restored. The message says what was kept and what to do."""
