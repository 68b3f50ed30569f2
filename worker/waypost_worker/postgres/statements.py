"""The statements of the worker's own tables, by name."""

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from waypost.statements import DEFAULT_SCHEMA as DEFAULT_SCHEMA
from waypost.statements import load_statement

_RARE: Final = re.compile(r"^ *-- rare:\n.*?^ *-- :rare\n", re.MULTILINE | re.DOTALL)
_COMMENT: Final = re.compile(r"^ *--.*\n| *--.*", re.MULTILINE)
_PARAMETER: Final = re.compile(r"\$(\d+)")
_EMPTY: Final[tuple[Any, ...]] = ("{}", 0, [])


def statement(name: str, schema: str = DEFAULT_SCHEMA) -> str:
    """Return the SQL in ``sql/{name}.sql`` next to this module, for a schema."""
    return load_statement("waypost_worker.postgres", name, schema)


class StatementForms:
    """Hold a statement in two forms: ``whole``, and ``short``, without the lines that its file marks as rare.

    The short form numbers its parameters from 1 again, because Postgres accepts none that the text does not name.
    """

    def __init__(self, name: str, schema: str = DEFAULT_SCHEMA) -> None:
        self.whole = statement(name, schema)
        often = _COMMENT.sub("", _RARE.sub("", self.whole))
        kept = _numbers(often)
        # Postgres shows the beginning of a statement to operators.
        self.short = f"-- {name}.sql without its rare parts\n" + _PARAMETER.sub(
            lambda match: f"${kept.index(int(match[1])) + 1}", often
        )
        self._kept = itemgetter(*[number - 1 for number in kept])
        self._left_out = itemgetter(*[number - 1 for number in _numbers(self.whole) if number not in kept])

    def choose(self, parameters: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """Return the form to run, and its parameters out of those of the whole one.

        It is the short form if every parameter that it leaves out is empty. The parameters decide, not the batch they
        were made from, so a rare part that is added later needs no change here.
        """
        if all(one in _EMPTY for one in self._left_out(parameters)):
            return self.short, self._kept(parameters)
        return self.whole, parameters


def _numbers(sql: str) -> list[int]:
    return sorted({int(number) for number in _PARAMETER.findall(_COMMENT.sub("", sql))})
