"""Errors of requested operations that were not done."""

from waypost.errors import WaypostError


class OperationError(WaypostError):
    """A requested operation can't be done, or was not; the message says what was changed and what to do."""
