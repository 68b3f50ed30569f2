"""Values that JSON lacks and agents have, as values that it has. Imports none of the libraries that they come from."""

from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any


def json_default(value: Any) -> Any:
    """Convert a value that JSON lacks, as ``waypost.Publisher(…, default=waypost.json_default)``.

    Dates and times become ISO 8601, decimals text, sets lists in any order, dataclasses and Pydantic models dicts, and
    NumPy's arrays and scalars lists and numbers. Reading gives these back, not the originals.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, set | frozenset):
        return list(value)
    if not isinstance(value, type):
        if is_dataclass(value):
            return {each.name: getattr(value, each.name) for each in fields(value)}
        if callable(dump := getattr(value, "model_dump", None)):  # Pydantic
            return dump(mode="json")
        if callable(to_list := getattr(value, "tolist", None)):  # NumPy
            return to_list()
    raise TypeError(f"json_default does not convert a {type(value).__name__}")
