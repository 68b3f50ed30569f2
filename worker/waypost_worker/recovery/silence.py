"""An encoder for folds whose results nobody looks at: encoding is a third of the work."""

from typing import Any, Final

from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import ResultRecord

_NOTHING: Final = ResultRecord(None, b"", ())


class SilentEncoder(ResultEncoder):
    """Makes the same empty record of everything."""

    def __init__(self, partition: int) -> None:
        super().__init__("", partition)

    def created(self, *_: Any) -> ResultRecord:
        """Nothing."""
        return _NOTHING

    def accepted(self, *_: Any) -> ResultRecord:
        """Nothing."""
        return _NOTHING

    def defaults_configured(self, *_: Any) -> ResultRecord:
        """Nothing."""
        return _NOTHING

    def duplicate(self, *_: Any) -> ResultRecord:
        """Nothing."""
        return _NOTHING

    def rejected(self, *_: Any, **__: Any) -> ResultRecord:
        """Nothing."""
        return _NOTHING
