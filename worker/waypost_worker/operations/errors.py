"""Why something that people asked for was not done."""

from waypost.errors import WaypostError


class OperationError(WaypostError):
    """What was asked for can't be done, or was not; the message says what was changed and what to do."""
