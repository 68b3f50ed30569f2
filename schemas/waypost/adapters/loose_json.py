"""A framework's values in a record: as JSON if the contract allows them, otherwise as text that Python's json reads.

Frameworks write with Python's json, which takes NaN, infinities, integers of any size, lone surrogates and any depth,
and turns keys into text. A command's JSON takes none of these. Pure.
"""

import json
from typing import Any, Final

from waypost.errors import InvalidCommandError
from waypost.model.limits import dump_object

TEXT: Final = "_json"  # ends the name of a member that holds such a text


def member(name: str, value: Any) -> dict[str, Any]:
    """Return the member of a record's data that holds ``value``.

    Raises:
        InvalidCommandError: Python's json can't write it either.
    """
    try:
        dump_object({name: value}, "data")
    except InvalidCommandError:
        # With escapes for all that is not ASCII, so that half a character survives.
        try:
            return {name + TEXT: json.dumps(value)}
        except RecursionError:
            raise InvalidCommandError("invalid-body", f"the {name} is nested too deeply") from None
        except (TypeError, ValueError) as error:
            raise InvalidCommandError(
                "invalid-body", f"the {name} can't be written as JSON: {error}"
            ) from None
    return {name: value}


def holds(name: str, data: dict[str, Any]) -> bool:
    """Tell whether a record's data has such a member, as an adapter writes it."""
    text = data.get(name + TEXT)
    if text is None:
        return name in data
    try:
        value_of(name, data)
    except ValueError:
        return False
    return True


def value_of(name: str, data: dict[str, Any]) -> Any:
    """Return the value that :func:`member` put into a record's data, or None if there is none.

    Raises:
        ValueError: The text is damaged.
    """
    if (text := data.get(name + TEXT)) is None:
        return data.get(name)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"the {name} is nested too deeply") from None
    except TypeError as error:
        raise ValueError(f"the {name} is not a text: {error}") from None
